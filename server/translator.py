"""Translator: text to ids and back, for one model.

JSON and SSE are one path: a JSON answer is the stream, collected.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from model import Card, DecodingOptions, OutsideVocabulary, Prompt, Tokenizer
from server.decoding_fields import DecodingFields, Demand
from server.engine import Engine
from server.errors import InvalidRequest, TooLarge, UnsupportedLanguage
from server.messages import Request, Update
from server.reader import Reader
from server.reading import Reading
from server.results import Part, Text
from server.text.languages import Detection
from server.text.segmentation import segment

logger = logging.getLogger(__name__)

MAX_WEIGHTS = 2**22  # of attention in one answer, by what its targets may grow to


def verify_count(texts: int, limit: int) -> None:
    """Raise TooLarge for more texts than a request may hold."""
    if texts > limit:
        raise TooLarge(f"Invalid request: request ({texts}) exceeds text limit ({limit})")


def _verify_weights(texts: Sequence[Text]) -> None:
    """Raise TooLarge for more attention than an answer may hold."""
    requests = [reader.request for text in texts for reader in text.readers]
    weights = sum(
        len(request.source) * request.options.max_new_tokens
        for request in requests
        if request.options.alignments is not None
    )
    if weights > MAX_WEIGHTS:
        raise TooLarge(
            f"alignments of up to {weights} weights exceed the limit of {MAX_WEIGHTS}; send less "
            "text, or a smaller max_new_tokens"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What an answer shall hold besides the text.

    Attributes:
        streams: deltas while the text is generated, rather than all at its end.
        previews: in a stream, what may come next.
        alternatives: other texts for the same source, at most.
    """

    streams: bool = False
    previews: bool = False
    scores: bool = False
    alternatives: int = 0


class Translator:
    """Text in, deltas out, for one model; everything but tokenising runs on the event loop."""

    def __init__(
        self,
        card: Card,
        tokenizer: Tokenizer,
        engine: Callable[[Callable[[Sequence[Update]], None]], Engine],
        *,
        max_texts: int,
        max_characters: int,
    ) -> None:
        """Build the engine around this translator's own way to receive updates.

        Args:
            engine: given the function that publishes updates, returns the engine to use.
        """
        self.card = card
        self.tokenizer = tokenizer
        self._max_texts, self._max_characters = max_texts, max_characters
        self._readers: dict[int, Reader] = {}
        self._loop = asyncio.get_running_loop()
        self.engine = engine(self._publish)
        self.languages = card.languages
        self._codes = card.aliases | {code.lower(): code for code in card.languages}

    # -- what a request asks for -------------------------------------------------------------

    async def translate(
        self,
        texts: Sequence[str],
        source: str | Sequence[Detection],
        target: str,
        fields: DecodingFields,
        wishes: Wishes,
        *,
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
        make = self._maker(fields, wishes)

        def prepare() -> list[Text]:
            pairs = zip(texts, sources, strict=True)
            planned = [self._plan(text, source, target, make) for text, source in pairs]
            if fields.target_prefix and any(len(text.readers) > 1 for text in planned):
                raise InvalidRequest("target_prefix begins one sentence; send sentences singly")
            _verify_weights(planned)
            return planned

        return Reading(self, await asyncio.to_thread(prepare), timeout_s)

    async def generate(
        self,
        text: str,
        fields: DecodingFields,
        wishes: Wishes,
        *,
        timeout_s: float,
    ) -> Reading:
        """Prepare raw text-to-text: special tokens in `text` count as such, nothing is segmented.

        Raises:
            InvalidRequest, TooLarge: before anything is accepted.
        """
        self.verify_size([text])
        make = self._maker(fields, wishes)
        try:
            source = await asyncio.to_thread(self.tokenizer.encode_raw, text)
        except OutsideVocabulary as error:
            raise InvalidRequest(str(error)) from error
        planned = [Text([make(Prompt(source))])]
        _verify_weights(planned)
        return Reading(self, planned, timeout_s)

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
                if update.finish is None and reader.is_over:
                    stopped.append(update.id)
                if update.finish is not None or reader.is_over:
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
        make: Callable[[Prompt], Reader],
    ) -> Text:
        detected, language = (
            (None, source) if isinstance(source, str) else (source, source.language)
        )
        if language == target:
            return Text([text], detected)
        parts: list[Part] = [
            make(self.tokenizer.prompt(piece.text, language, target))
            if piece.is_translatable
            else piece.text
            for piece in segment(text, language)
        ]
        return Text(parts, detected)

    def _maker(self, fields: DecodingFields, wishes: Wishes) -> Callable[[Prompt], Reader]:
        """Return what makes a reader of a prompt, with options that are verified here, once."""
        fields.verified(self.card.defaults, self.card.max_target)
        self._verify_ids(fields)
        if wishes.alternatives and fields.stop:
            raise InvalidRequest("stop ends one text: leave out alternatives, or stop")
        prefix = self.tokenizer.encode_target(fields.target_prefix or "")
        forced = self._forced(fields)

        @cache
        def options(prompt: Prompt, source_tokens: int, alternatives: int) -> DecodingOptions:
            demand = self._demand(prompt, forced, prefix, source_tokens, alternatives, wishes)
            return fields.options(demand, limit=self.card.max_target, defaults=self.card.defaults)

        def make(prompt: Prompt) -> Reader:
            source = prompt.source
            if len(source) > self.card.max_source:
                raise TooLarge(
                    f"one sentence has {len(source)} tokens, above the model's limit of "
                    f"{self.card.max_source}; split it with punctuation or line breaks"
                )
            frame = replace(prompt, source=())
            chosen = options(frame, len(source), 0)
            others = None
            if wishes.alternatives:  # one more than wanted: the text itself is likely among them
                branching = options(frame, len(source), wishes.alternatives + 1)
                branching = replace(branching, alignments=None, wants_scores=False)
                others = Reader(Request(source, branching, streams=False))
            # A stop string is found in the text, so that the text has to be followed.
            streams = wishes.streams or bool(chosen.stop)
            return Reader(Request(source, chosen, streams, wishes.previews), others)

        return make

    def _demand(
        self,
        prompt: Prompt,
        forced: int | None,
        prefix: tuple[int, ...],
        source_tokens: int,
        alternatives: int,
        wishes: Wishes,
    ) -> Demand:
        first = prompt.forced_bos if forced is None else forced
        if first is None:
            first = self.card.defaults.get("forced_bos_token_id")
        # What is forced to come first comes before what the text shall begin with, and before
        # alternatives branch.
        if first is not None and (prefix or alternatives):
            prefix = (first, *prefix)
        return Demand(
            source_tokens=source_tokens,
            start=prompt.start,
            forced_bos=first,
            target_prefix=prefix,
            alternatives=alternatives,
            wants_scores=wishes.scores,
        )

    def _forced(self, fields: DecodingFields) -> int | None:
        if fields.forced_bos_token is None:
            return None
        token = self.tokenizer.token_id(fields.forced_bos_token)
        if token is None or token >= self.card.vocabulary:
            name = fields.forced_bos_token[:100]
            raise InvalidRequest(f"forced_bos_token {name!r} is not in the model's vocabulary")
        return token

    def _verify_ids(self, fields: DecodingFields) -> None:
        """Refuse token ids and layers that the model does not have."""
        vocabulary, layers = self.card.vocabulary, self.card.decoder_layers
        if not all(0 <= token < vocabulary for token in fields.suppress_tokens or ()):
            raise InvalidRequest(f"suppress_tokens must be ids from 0 to {vocabulary - 1}")
        layer = fields.alignments
        if isinstance(layer, int) and not isinstance(layer, bool) and not 0 <= layer < layers:
            raise InvalidRequest(f"alignments must be true, average or a layer below {layers}")

    def verify_size(self, texts: Sequence[str]) -> None:
        """Raise TooLarge for too many texts or too long a one."""
        verify_count(len(texts), self._max_texts)
        longest = max(map(len, texts), default=0)
        if longest > self._max_characters:
            raise TooLarge(
                f"Invalid request: request ({longest}) exceeds text limit ({self._max_characters})"
            )

    def known(self, code: str) -> str:
        """Return the code that `targets` has for a language code, however it is spelled."""
        return self._codes.get(code.lower(), code)

    def _verify_pair(self, source: str, target: str) -> None:
        if not self.covers(source, target):
            raise UnsupportedLanguage(f"{self.card.name} does not translate {source} to {target}")

    def __repr__(self) -> str:
        return f"<Translator {self.card.name}, {len(self._readers)} read, {self.engine!r}>"
