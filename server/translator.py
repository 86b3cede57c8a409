"""Translator: text to ids and back, for one model.

JSON and SSE are one path: a JSON answer is the stream, collected.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import cache

from model import Card, DecodingOptions, OutsideVocabulary, Tokenizer
from server.decoding_fields import DecodingFields
from server.engine import Engine
from server.errors import InvalidRequest, TooLarge, UnsupportedLanguage
from server.messages import Request, Update
from server.reading import Part, Reader, Reading, Text
from server.text.languages import Detection, LanguageDetector
from server.text.segmentation import segment


def verify_count(texts: int, limit: int) -> None:
    """Raise TooLarge for more texts than a request may hold."""
    if texts > limit:
        raise TooLarge(f"Invalid request: request ({texts}) exceeds text limit ({limit})")


class Translator:
    """Text in, deltas out, for one model; everything but tokenising runs on the event loop."""

    def __init__(
        self,
        card: Card,
        tokenizer: Tokenizer,
        detector: LanguageDetector | None,
        engine: Callable[[Callable[[Sequence[Update]], None]], Engine],
        *,
        max_texts: int,
        max_characters: int,
    ) -> None:
        """Build the engine around this translator's own way to receive updates.

        Args:
            detector: of the card's languages; None where it declares none.
            engine: given the function that publishes updates, returns the engine to use.
        """
        self.card = card
        self.tokenizer = tokenizer
        self._max_texts, self._max_characters = max_texts, max_characters
        self._readers: dict[int, Reader] = {}
        self._loop = asyncio.get_running_loop()
        self.engine = engine(self._publish)
        self.languages = card.languages
        own = {code.lower(): code for code in ("auto", *card.languages)}
        self._codes = {**tokenizer.aliases, **own}
        self._detector = detector

    # -- what a request asks for -------------------------------------------------------------

    async def translate(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        fields: DecodingFields,
        *,
        timeout_s: float,
        wants_scores: bool = False,
        streams: bool = False,
    ) -> Reading:
        """Prepare a translation; entering the returned context submits it.

        Args:
            source: a language code, or `auto`: detected for each text.
            streams: whether deltas are wanted while the text is generated, or all at its end.

        Raises:
            InvalidRequest, UnsupportedLanguage, TooLarge: before anything is accepted.
        """
        self.verify_size(texts)
        source, target = self._known(source), self._known(target)
        self._verify_pair(source, target)
        make = self._maker(fields, wants_scores, streams)

        def prepare() -> list[Text]:
            return [self._plan(text, source, target, make) for text in texts]

        return Reading(self, await asyncio.to_thread(prepare), timeout_s)

    async def generate(
        self,
        text: str,
        fields: DecodingFields,
        *,
        timeout_s: float,
        wants_scores: bool = False,
        streams: bool = False,
    ) -> Reading:
        """Prepare raw text-to-text: special tokens in `text` count as such, nothing is segmented.

        Raises:
            InvalidRequest, TooLarge: before anything is accepted.
        """
        self.verify_size([text])
        make = self._maker(fields, wants_scores, streams)
        try:
            source = await asyncio.to_thread(self.tokenizer.encode_raw, text)
        except OutsideVocabulary as error:
            raise InvalidRequest(str(error)) from error
        return Reading(self, [Text([make(source)])], timeout_s)

    def detect(self, text: str) -> list[Detection]:
        """Return the model's languages by how likely `text` is in them, best first."""
        if self._detector is None:
            raise UnsupportedLanguage("this model declares no languages to detect among")
        return self._detector.rank(text)

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
                reader.receive(update, self.tokenizer)
                if update.finish is None and reader.is_over:
                    stopped.append(update.id)
                if update.finish is not None or reader.is_over:
                    del self._readers[update.id]
        if stopped:  # by a stop string, of which the engine knows nothing
            self.engine.cancel(stopped)

    # -- text to ids -------------------------------------------------------------------------

    def _plan(
        self, text: str, source: str, target: str, make: Callable[[tuple[int, ...]], Reader]
    ) -> Text:
        detected = self.detect(text)[0] if source == "auto" else None
        language = detected.language if detected else source
        if language == target:
            return Text([text], detected)
        if target not in self.card.targets.get(language, ()):
            raise UnsupportedLanguage(f"{language} (detected) to {target} is not supported")
        parts: list[Part] = [
            make(self.tokenizer.prompt(piece.text, language, target).source)
            if piece.is_translatable
            else piece.text
            for piece in segment(text, language)
        ]
        return Text(parts, detected)

    def _maker(
        self, fields: DecodingFields, wants_scores: bool, streams: bool
    ) -> Callable[[tuple[int, ...]], Reader]:
        """Return what makes a reader of a source, with options that are verified here, once."""
        fields.verified(self.card.defaults, self.card.max_target)

        @cache
        def options(source_tokens: int) -> DecodingOptions:
            return fields.options(
                source_tokens=source_tokens,
                limit=self.card.max_target,
                defaults=self.card.defaults,
                wants_scores=wants_scores,
            )

        def make(source: tuple[int, ...]) -> Reader:
            if len(source) > self.card.max_source:
                raise TooLarge(
                    f"one sentence has {len(source)} tokens, above the model's limit of "
                    f"{self.card.max_source}; split it with punctuation or line breaks"
                )
            chosen = options(len(source))
            # A stop string is found in the text, so that the text has to be followed.
            return Reader(Request(source, chosen, streams=streams or bool(chosen.stop)))

        return make

    def verify_size(self, texts: Sequence[str]) -> None:
        """Raise TooLarge for too many texts or too long a one."""
        verify_count(len(texts), self._max_texts)
        longest = max(map(len, texts), default=0)
        if longest > self._max_characters:
            raise TooLarge(
                f"Invalid request: request ({longest}) exceeds text limit ({self._max_characters})"
            )

    def _known(self, code: str) -> str:
        """Return the code that `targets` has for a language code, however it is spelled."""
        return self._codes.get(code.lower(), code)

    def _verify_pair(self, source: str, target: str) -> None:
        known = ", ".join(self.languages) or "none"
        for code in (target,) if source == "auto" else (source, target):
            if code not in self.languages:
                raise UnsupportedLanguage(
                    f"{code[:40]} is not supported; the loaded languages are: {known}"
                )
        if source not in ("auto", target) and target not in self.card.targets.get(source, ()):
            raise UnsupportedLanguage(f"{source} to {target} is not supported")

    def __repr__(self) -> str:
        return f"<Translator {self.card.name}, {len(self._readers)} read, {self.engine!r}>"
