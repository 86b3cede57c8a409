"""A request's texts while they are generated: updates in, text that is certain out."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from model import Detokenizer, Tokenizer
from server.errors import DeadlineExceeded, GenerationFailed, ServiceError
from server.generation import Finish
from server.messages import Request, Timings, Update
from server.text.languages import Detection


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


@dataclass(slots=True, eq=False)
class Reader:
    """The translator's side of one generation: what has arrived and how it reads as text.

    A document has many that have not begun: what only a begun one needs is made when it begins.
    """

    request: Request
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None  # stop, length or stop_string
    error: ServiceError | None = None
    timings: Timings | None = None
    _detokenizer: Detokenizer | None = None
    _waiter: asyncio.Future[None] | None = None
    _shown: int = 0  # characters of `text` that were taken
    _shown_tokens: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be read."""
        return self.finish is not None or self.error is not None

    async def news(self) -> None:
        """Wait for the next update, or return at once if there is something to take."""
        if not self.is_over and self._shown_tokens == len(self.tokens):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def receive(self, update: Update, tokenizer: Tokenizer) -> None:
        """Read an update; whoever waits is woken."""
        self._detokenizer = self._detokenizer or tokenizer.detokenizer()
        for token, score in zip(update.tokens, update.scores, strict=True):
            text = self._detokenizer.push(token)
            self._extend(text)
            self.tokens.append(Token(token, text, score, tokenizer.is_special(token)))
            if self.is_over:
                break
        if update.finish is not None and not self.is_over:
            self._extend(self._detokenizer.finish())
            self._end(update.finish)
        self.timings = update.timings
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> tuple[str, tuple[Token, ...]]:
        """Return the certain text and the tokens that were not taken before; raises `error`."""
        if self.error is not None:
            raise self.error
        certain = max(self._shown, len(self.text) - self._may_become_a_stop())
        text, tokens = self.text[self._shown : certain], self.tokens[self._shown_tokens :]
        self._shown, self._shown_tokens = certain, len(self.tokens)
        return text, tuple(tokens)

    def _extend(self, text: str) -> None:
        start = len(self.text)
        self.text += text
        stops = self.request.options.stop
        longest = max(map(len, stops), default=1)
        found = [i for s in stops if (i := self.text.find(s, max(0, start - longest + 1))) >= 0]
        if found:
            self.text, self.finish = self.text[: min(found)], "stop_string"

    def _end(self, finish: Finish) -> None:
        if self.is_over:  # the last piece of text brought a stop string
            return
        if finish is Finish.TIMEOUT:
            self.error = DeadlineExceeded("the request did not finish within its time")
        elif finish in (Finish.STOP, Finish.LENGTH):
            self.finish = finish.value
        else:
            self.error = GenerationFailed("the model failed on this request, not on others")

    def _may_become_a_stop(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        if self.finish is not None:
            return 0
        return max((_overlap(self.text, stop) for stop in self.request.options.stop), default=0)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`, all of it excluded."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


WINDOW = 512  # segments of one request in the engine at a time

Part = str | Reader  # text that stays as it is, or a segment to be translated


@dataclass(slots=True)
class Text:
    """One text of a request as parts in order."""

    parts: list[Part]
    detected: Detection | None = None

    @property
    def readers(self) -> list[Reader]:
        """The parts that are generated."""
        return [part for part in self.parts if isinstance(part, Reader)]


class Door(Protocol):
    """The way into the engine and back, on the event loop."""

    def submit(
        self, readers: Sequence[Reader], timeout_s: float, group: int | None
    ) -> dict[int, Reader]:
        """Hand requests to the engine; returns them by id."""

    def forget(self, accepted: dict[int, Reader]) -> None:
        """Cancel those that have not ended."""


class Reading:
    """A request's texts while they are generated; leaving the `async with` cancels the rest.

    A long document enters the engine in windows, so that it holds neither its queue nor its memory.
    """

    def __init__(self, door: Door, texts: list[Text], timeout_s: float) -> None:
        self._door, self._texts = door, texts
        self._ahead = deque(reader for text in texts for reader in text.readers)
        self._accepted: dict[int, Reader] = {}
        self._group: int | None = None
        self._read = 0  # readers read to their end
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self._deadline = self._began_at + timeout_s

    async def __aenter__(self) -> Self:
        """Submit the first window to the engine, or raise its refusal."""
        self._submit()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up what is not finished."""
        self._door.forget(self._accepted)

    def _submit(self) -> None:
        room = WINDOW - (len(self._accepted) - self._read)
        if room < WINDOW // 2 or not self._ahead:
            return
        window = [self._ahead.popleft() for _ in range(min(room, len(self._ahead)))]
        left_s = self._deadline - self._loop.time()
        accepted = self._door.submit(window, left_s, self._group)
        self._group = next(iter(accepted)) if self._group is None else self._group
        self._accepted |= accepted

    async def deltas(self) -> AsyncIterator[Delta]:
        """Yield text in reading order; a consumer that is behind gets its tokens joined.

        Raises:
            DeadlineExceeded, GenerationFailed: the request has failed as a whole.
        """
        for index, text in enumerate(self._texts):
            for number, part in enumerate(text.parts):
                if isinstance(part, str):
                    yield Delta(index, number, part)
                    continue
                while not part.is_over:
                    await part.news()
                    new, tokens = part.take()
                    if new or tokens:
                        yield Delta(index, number, new, tokens)
                new, tokens = part.take()  # of one that was over before its turn came
                if new or tokens:
                    yield Delta(index, number, new, tokens)
                self._read += 1
                self._submit()

    async def collect(self) -> list[Result]:
        """Wait for everything; returns one result per text."""
        async for _ in self.deltas():
            pass
        return self.results()

    def results(self) -> list[Result]:
        """Return the results, once `deltas` has been read to its end."""
        return [self._result(text) for text in self._texts]

    def _result(self, text: Text) -> Result:
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
        if isinstance(part, Reader) and part.finish == "length":
            limit = part.request.options.max_new_tokens
            yield f"segment {number} was cut at {limit} tokens; send a larger max_new_tokens"
