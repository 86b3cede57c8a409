"""A request's texts while they are generated: segments in windows, deltas in reading order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from server.reader import Reader, Token
from server.results import Result, Text, result_of

WINDOW = 512  # segments of one request in the engine at a time


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that will not change any more; the deltas of one text concatenate to its translation.

    `preview` is what may follow in the segment, and may not: it stands until the next one, which
    comes with every text that makes it wrong.
    """

    text_index: int
    segment: int
    text: str
    tokens: tuple[Token, ...] = ()
    preview: str | None = None


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
        self._ahead = deque(reader for text in texts for reader in text.all_readers)
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
                    preview = part.preview
                    new, tokens = part.take()
                    if new or tokens or preview is not None:
                        yield Delta(index, number, new, tokens, preview)
                preview = part.preview
                new, tokens = part.take()  # of one that was over before its turn came
                if new or tokens or preview is not None:
                    yield Delta(index, number, new, tokens, preview)
                await self._end(part)

    async def collect(self) -> list[Result]:
        """Wait for everything; returns one result per text."""
        for text in self._texts:
            for reader in text.readers:
                await self._end(reader)
        return self.results()

    async def _end(self, reader: Reader) -> None:
        """Wait until a reader is over, its alternatives too, and let the next window follow."""
        await reader.end()
        self._read += 1
        if reader.others is not None:
            await reader.others.end()
            self._read += 1
        self._submit()

    def results(self) -> list[Result]:
        """Return the results, once `deltas` has been read to its end."""
        total_s = self._loop.time() - self._began_at
        return [result_of(text, total_s) for text in self._texts]
