"""Translator: text to ids and back, for one model.

JSON and SSE are one path: a JSON answer is the stream, collected.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TypeVar

from model import Card, OutsideVocabulary, Prompt, Tokenizer
from server.decoding_fields import DecodingFields
from server.engine import Engine
from server.errors import InvalidRequest, TooLarge, UnsupportedLanguage
from server.messages import Update
from server.preparation import Preparation, Wishes
from server.reader import Reader
from server.reading import Reading
from server.results import Part, Text
from server.text.cutting import cut, spaced
from server.text.languages import LONGEST_TAG, Detection, closest
from server.text.rules import PLAIN, TextRules
from server.text.segmentation import clauses
from server.text.segments import Segment

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


_FEW, _SHORT_CHARACTERS = 16, 1000  # together: they take half a millisecond or one


async def read_through(texts: Sequence[str], work: Callable[[], _Result]) -> _Result:
    """Do `work` that takes as long as `texts` are: a few short ones at once, others on a thread.

    Going to a thread and back costs the event loop more than reading a short text.
    """
    if len(texts) <= _FEW and sum(map(len, texts)) <= _SHORT_CHARACTERS:
        return work()
    return await asyncio.to_thread(work)


def verify_count(texts: int, limit: int) -> None:
    """Raise TooLarge for more texts than a request may hold."""
    if texts > limit:
        raise TooLarge(f"Invalid request: request ({texts}) exceeds text limit ({limit})")


class Translator:
    """Text in, deltas out, for one model, on the event loop; long texts are prepared on threads."""

    def __init__(
        self,
        card: Card,
        tokenizer: Tokenizer,
        engine: Callable[[Callable[[Sequence[Update]], None]], Engine],
        *,
        max_texts: int,
        max_characters: int,
        max_beams: int,
    ) -> None:
        """Build the engine around this translator's own way to receive updates.

        Args:
            engine: given the function that publishes updates, returns the engine to use.
            max_beams: hypotheses that one sentence may have at once.
        """
        self.card = card
        self.tokenizer = tokenizer
        self._max_texts, self._max_characters = max_texts, max_characters
        self._max_beams = max_beams
        self._readers: dict[int, Reader] = {}
        self._loop = asyncio.get_running_loop()
        self.engine = engine(self._publish)
        self.languages = card.languages
        self._codes = card.aliases | {code.lower(): code for code in card.languages}
        self._closest = lru_cache(1024)(partial(closest, among=card.languages))

    # -- what a request asks for -------------------------------------------------------------

    async def translate(
        self,
        texts: Sequence[str],
        source: str | Sequence[Detection],
        target: str,
        fields: DecodingFields,
        wishes: Wishes,
        *,
        rules: TextRules = PLAIN,
        timeout_s: float,
    ) -> Reading:
        """Prepare a translation; entering the returned context submits it.

        Args:
            source: the texts' language, or what was detected for each of them.

        Raises:
            InvalidRequest, UnsupportedLanguage, TooLarge: before anything is accepted.
        """
        self.verify_size(texts)
        target = self.known(target)
        sources: Sequence[str | Detection] = source
        if isinstance(source, str):
            sources = [self.known(source)] * len(texts)
        for language in {each if isinstance(each, str) else each.language for each in sources}:
            self._verify_pair(language, target)
        preparation = self._preparation(fields, wishes)

        def prepare() -> list[Text]:
            pairs = zip(texts, sources, strict=True)
            planned = [
                self._plan(text, source, target, preparation, rules) for text, source in pairs
            ]
            preparation.verify(planned)
            return planned

        return Reading(self, await read_through(texts, prepare), timeout_s)

    async def generate(
        self,
        texts: Sequence[str],
        fields: DecodingFields,
        wishes: Wishes,
        *,
        timeout_s: float,
    ) -> Reading:
        """Prepare raw text-to-text: special tokens in `texts` count as such, nothing is segmented.

        Raises:
            InvalidRequest, TooLarge: before anything is accepted.
        """
        self.verify_size(texts)
        preparation = self._preparation(fields, wishes)
        encode = self.tokenizer.encode_raw
        try:
            sources = await read_through(texts, lambda: [encode(text) for text in texts])
        except OutsideVocabulary as error:
            raise InvalidRequest(str(error)) from error
        planned = [Text([preparation.reader(Prompt(source))]) for source in sources]
        preparation.verify(planned)
        return Reading(self, planned, timeout_s)

    def _preparation(self, fields: DecodingFields, wishes: Wishes) -> Preparation:
        return Preparation(self.card, self.tokenizer, fields, wishes, max_beams=self._max_beams)

    def covers(self, source: str, target: str) -> bool:
        """Whether it translates the pair; text that is in the target already stays as it is."""
        source, target = self.known(source), self.known(target)
        if source == target:
            return target in self.languages
        return target in self.card.targets.get(source, ())

    # -- the engine's side -------------------------------------------------------------------

    def submit(
        self, readers: Sequence[Reader], timeout_s: float, group: int | None
    ) -> dict[int, Reader]:
        """Hand requests to the engine; returns them by id. Call it on the event loop."""
        ids = self.engine.submit([reader.request for reader in readers], timeout_s, group)
        accepted = dict(zip(ids, readers, strict=True))
        self._readers |= accepted
        return accepted

    def forget(self, accepted: dict[int, Reader]) -> None:
        """Cancel those that the engine has not ended, and listen to none of them any more."""
        unfinished = [identity for identity in accepted if identity in self._readers]
        for identity in unfinished:
            del self._readers[identity]
        if unfinished:
            self.engine.cancel(unfinished)

    def _publish(self, updates: Sequence[Update]) -> None:
        self._loop.call_soon_threadsafe(self._deliver, updates)

    def _deliver(self, updates: Sequence[Update]) -> None:
        stopped = []
        for update in updates:
            if reader := self._readers.get(update.id):
                self._receive(reader, update)
                if update.finish is None and reader.has_ended:
                    stopped.append(update.id)
                if update.finish is not None or reader.has_ended:
                    del self._readers[update.id]
        if stopped:  # by a stop string, of which the engine knows nothing
            self.engine.cancel(stopped)

    def _receive(self, reader: Reader, update: Update) -> None:
        try:
            reader.receive(update, self.tokenizer)
        except Exception:  # it takes neither the others with it nor its own end
            logger.exception("an update could not be read")
            reader.fail()

    # -- text to ids -------------------------------------------------------------------------

    def _plan(
        self,
        text: str,
        source: str | Detection,
        target: str,
        preparation: Preparation,
        rules: TextRules,
    ) -> Text:
        detected, language = (
            (None, source) if isinstance(source, str) else (source, source.language)
        )
        if language == target:
            return Text([text], detected)
        parts: list[Part] = []
        warnings = []
        for piece in spaced(cut(text, language, rules), target):
            found = self._parts_of(piece, language, target, preparation)
            count = sum(not isinstance(part, str) for part in found)
            if count > 1:
                warnings.append(
                    f"segment {len(parts)} is longer than the model's {self.card.max_source} "
                    f"tokens: its {count} parts were translated one by one"
                )
            parts += found
        return Text(parts, detected, tuple(warnings))

    def _parts_of(
        self, piece: Segment, source: str, target: str, preparation: Preparation
    ) -> list[Part]:
        """Return what a segment comes to: a sentence too long for the model is cut into clauses."""
        if not piece.is_translatable:
            return [piece.text]
        try:
            return [preparation.translation(piece, source, target)]
        except TooLarge:
            fits = partial(preparation.fits, source=source, target=target)
            try:
                found = clauses(piece, fits)
            except ValueError as error:
                raise TooLarge(str(error)) from error
            return [
                preparation.translation(each, source, target) if each.is_translatable else each.text
                for each in spaced(found, target)
            ]

    def verify_size(self, texts: Sequence[str]) -> None:
        """Raise TooLarge for too many texts or too long a one."""
        verify_count(len(texts), self._max_texts)
        longest = max(map(len, texts), default=0)
        if longest > self._max_characters:
            raise TooLarge(
                f"Invalid request: request ({longest}) exceeds text limit ({self._max_characters})"
            )

    def known(self, code: str) -> str:
        """Return the code that `targets` has for a language, however it is spelled.

        A variety that the model does not tell apart is its language: `pt` for `pt-BR`.
        """
        if len(code) > LONGEST_TAG:  # what is no tag is not remembered either
            return code
        return self._codes.get(code.lower()) or self._closest(code) or code

    def _verify_pair(self, source: str, target: str) -> None:
        if not self.covers(source, target):
            raise UnsupportedLanguage(f"{self.card.name} does not translate {source} to {target}")

    def __repr__(self) -> str:
        return f"<Translator {self.card.name}, {len(self._readers)} read, {self.engine!r}>"
