"""Translator: one request's path from text to deltas and back to text.

JSON and SSE are one path: a JSON answer is the stream, collected.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from model import Card, Detokenizer, Tokenizer
from server.decoding_fields import DecodingFields
from server.engine import Engine, Request, Timings, Update
from server.errors import (
    DeadlineExceeded,
    Draining,
    GenerationFailed,
    TooLarge,
    UnsupportedLanguage,
)
from server.generation import Finish
from server.text.languages import Detection, LanguageDetector
from server.text.segmentation import segment


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token and the text that became certain with it."""

    id: int
    text: str
    score: float
    is_special: bool


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that will not change any more; the deltas of one text concatenate to its translation."""

    text_index: int
    segment: int
    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a text cost, in tokens."""

    source_tokens: int
    target_tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """One text's translation; `finish` is stop, length or stop_string."""

    text: str
    finish: str
    usage: Usage
    timings: Timings
    scores: tuple[float, ...]
    warnings: tuple[str, ...]
    detected: Detection | None


@dataclass(slots=True)
class _Reader:
    """The translator's side of one generation: what has arrived and how it reads as text."""

    request: Request
    detokenizer: Detokenizer
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    finish: str | None = None
    timings: Timings | None = None
    _released: int = 0  # characters of `text` already handed out

    def receive(self, update: Update) -> None:
        self.updates.append(update)
        self.arrived.set()

    def advance(self, tokenizer: Tokenizer) -> tuple[str, tuple[Token, ...]]:
        """Take what has arrived; returns the text and tokens that are new and certain."""
        self.arrived.clear()
        updates, self.updates = self.updates, []
        first_new = len(self.tokens)
        for update in updates:
            if self.finish is not None:
                break  # a stop string has ended the text; the engine learns of it later
            for token, score in zip(update.tokens, update.scores, strict=True):
                text = self.detokenizer.push(token)
                self._extend(text)
                self.tokens.append(Token(token, text, score, tokenizer.is_special(token)))
                if self.finish is not None:
                    break
            if update.finish is not None and self.finish is None:
                self._end(update)
            self.timings = update.timings or self.timings
        return self._release(), tuple(self.tokens[first_new:])

    def _extend(self, text: str) -> None:
        start = len(self.text)
        self.text += text
        stops = self.request.options.stop
        longest = max(map(len, stops), default=1)
        found = [i for s in stops if (i := self.text.find(s, max(0, start - longest + 1))) >= 0]
        if found:
            self.text, self.finish = self.text[: min(found)], "stop_string"

    def _end(self, update: Update) -> None:
        self._extend(self.detokenizer.finish())
        if update.finish is Finish.TIMEOUT:
            raise DeadlineExceeded("the request did not finish within its time")
        if update.finish is Finish.CANCELLED:
            raise Draining("the request was cancelled by the server", 1.0)
        if update.finish is Finish.ERROR:
            raise GenerationFailed("the model failed on this request; others were not affected")
        if self.finish is None and update.finish is not None:
            self.finish = update.finish.value

    def _release(self) -> str:
        """Hand out text, but hold back an ending that may be the beginning of a stop string."""
        certain = len(self.text)
        if self.finish is None:
            for stop in self.request.options.stop:
                for size in range(min(len(stop) - 1, certain), 0, -1):
                    if stop.startswith(self.text[-size:]):
                        certain = min(certain, len(self.text) - size)
                        break
        certain = max(certain, self._released)
        released, self._released = self.text[self._released : certain], certain
        return released


Part = str | _Reader  # text that stays as it is, or a segment to be translated


@dataclass(slots=True)
class _Text:
    """One text of a request as parts in order."""

    parts: list[Part]
    detected: Detection | None = None

    @property
    def readers(self) -> list[_Reader]:
        return [part for part in self.parts if isinstance(part, _Reader)]


class Reading:
    """A request's texts while they are generated; leaving the `async with` cancels the rest."""

    def __init__(self, translator: "Translator", texts: list[_Text], timeout_s: float) -> None:
        self._translator, self._texts, self._timeout_s = translator, texts, timeout_s
        self._pending: dict[int, _Reader] = {}
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()

    async def __aenter__(self) -> Self:
        """Submit everything to the engine, or raise its refusal."""
        readers = [reader for text in self._texts for reader in text.readers]
        if readers:
            self._pending = self._translator.submit(readers, self._timeout_s)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up what is not finished."""
        self._translator.forget(self._pending)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Yield text in reading order; a consumer that is behind gets its tokens joined.

        Raises:
            DeadlineExceeded, GenerationFailed, Draining: the request has failed as a whole.
        """
        for index, text in enumerate(self._texts):
            for number, part in enumerate(text.parts):
                if isinstance(part, str):
                    yield Delta(index, number, part)
                    continue
                while part.finish is None:
                    await part.arrived.wait()
                    new, tokens = part.advance(self._translator.tokenizer)
                    if new or tokens:
                        yield Delta(index, number, new, tokens)

    async def collect(self) -> list[Result]:
        """Wait for everything; returns one result per text."""
        async for _ in self.deltas():
            pass
        return self.results()

    def results(self) -> list[Result]:
        """Return the results, once `deltas` has been read to its end."""
        return [self._result(text) for text in self._texts]

    def _result(self, text: _Text) -> Result:
        readers = text.readers
        total_s = self._loop.time() - self._began_at
        timings = [reader.timings for reader in readers if reader.timings]
        finishes = [reader.finish for reader in readers]
        is_cut = "length" in finishes
        return Result(
            text="".join(p if isinstance(p, str) else p.text for p in text.parts),
            finish="length" if is_cut else "stop_string" if "stop_string" in finishes else "stop",
            usage=Usage(
                sum(len(reader.request.source) for reader in readers),
                sum(len(reader.tokens) for reader in readers),
            ),
            timings=Timings(
                min((t.queue_s for t in timings if t.queue_s is not None), default=None),
                min(
                    (t.first_token_s for t in timings if t.first_token_s is not None), default=None
                ),
                total_s,
            ),
            scores=tuple(token.score for reader in readers for token in reader.tokens),
            warnings=tuple(_cut_warnings(text.parts)),
            detected=text.detected,
        )


def _cut_warnings(parts: Sequence[Part]) -> Iterable[str]:
    for number, part in enumerate(parts):
        if isinstance(part, _Reader) and part.finish == "length":
            limit = part.request.options.max_new_tokens
            yield f"segment {number} was cut at {limit} tokens; send a larger max_new_tokens"


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
        self._readers: dict[int, _Reader] = {}
        self._loop = asyncio.get_running_loop()
        self.engine = engine(self._publish)
        self.languages = card.languages
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
        self._verify_pair(source, target)
        fields.verified(self.card.defaults)

        make = partial(self._reader, fields, wants_scores, streams)

        def prepare() -> list[_Text]:
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
        fields.verified(self.card.defaults)
        source = await asyncio.to_thread(self.tokenizer.encode_raw, text)
        reader = self._reader(fields, wants_scores, streams, source)
        return Reading(self, [_Text([reader])], timeout_s)

    def detect(self, text: str) -> list[Detection]:
        """Return the model's languages by how likely `text` is in them, best first."""
        if self._detector is None:
            raise UnsupportedLanguage("this model declares no languages to detect among")
        return self._detector.rank(text)

    # -- the engine's side -------------------------------------------------------------------

    def submit(self, readers: Sequence[_Reader], timeout_s: float) -> dict[int, _Reader]:
        """Hand requests to the engine; returns them by id. Call it on the event loop."""
        ids = self.engine.submit([reader.request for reader in readers], timeout_s)
        accepted = dict(zip(ids, readers, strict=True))
        self._readers |= accepted
        return accepted

    def forget(self, accepted: dict[int, _Reader]) -> None:
        """Cancel those that the engine has not ended, and listen to none of them any more."""
        unfinished = [identity for identity in accepted if identity in self._readers]
        for identity in unfinished:
            del self._readers[identity]
        if unfinished:
            self.engine.cancel(unfinished)

    def _publish(self, updates: Sequence[Update]) -> None:
        self._loop.call_soon_threadsafe(self._deliver, updates)

    def _deliver(self, updates: Sequence[Update]) -> None:
        for update in updates:
            if reader := self._readers.get(update.id):
                reader.receive(update)
                if update.finish is not None:
                    del self._readers[update.id]

    # -- text to ids -------------------------------------------------------------------------

    def _plan(
        self, text: str, source: str, target: str, make: Callable[[tuple[int, ...]], _Reader]
    ) -> _Text:
        detected = self.detect(text)[0] if source == "auto" else None
        language = detected.language if detected else source
        if language == target:
            return _Text([text], detected)
        code = target if self.card.has_target_token else None
        parts: list[Part] = [
            make(self.tokenizer.encode(piece.text, code)) if piece.is_translatable else piece.text
            for piece in segment(text, language)
        ]
        return _Text(parts, detected)

    def _reader(
        self,
        fields: DecodingFields,
        wants_scores: bool,
        streams: bool,
        source: tuple[int, ...],
    ) -> _Reader:
        if len(source) > self.card.max_source:
            raise TooLarge(
                f"one sentence has {len(source)} tokens, above the model's limit of "
                f"{self.card.max_source}; split it with punctuation or line breaks"
            )
        options = fields.options(
            source_tokens=len(source),
            limit=self.card.max_target,
            defaults=self.card.defaults,
            wants_scores=wants_scores,
        )
        # A stop string is found in the text, so that the text has to be followed.
        request = Request(source, options, streams=streams or bool(options.stop))
        return _Reader(request, self.tokenizer.detokenizer())

    def verify_size(self, texts: Sequence[str]) -> None:
        """Raise TooLarge for too many texts or too long a one."""
        if len(texts) > self._max_texts:
            raise TooLarge(
                f"Invalid request: request ({len(texts)}) exceeds text limit ({self._max_texts})"
            )
        longest = max(map(len, texts), default=0)
        if longest > self._max_characters:
            raise TooLarge(
                f"Invalid request: request ({longest}) exceeds text limit ({self._max_characters})"
            )

    def _verify_pair(self, source: str, target: str) -> None:
        known = ", ".join(self.languages) or "none"
        for code in (target,) if source == "auto" else (source, target):
            if code not in self.languages:
                raise UnsupportedLanguage(
                    f"{code} is not supported; the loaded languages are: {known}"
                )
        if source not in ("auto", target) and target not in self.card.targets.get(source, ()):
            raise UnsupportedLanguage(f"{source} to {target} is not supported")

    def __repr__(self) -> str:
        return f"<Translator {self.card.name}, {len(self._readers)} read, {self.engine!r}>"
