"""A request's texts while they are generated: segments in windows, deltas in reading order."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from server.errors import ServiceError
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
        accepted = self._accept(window)
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
                if part.masked is not None:
                    await self._end(part)
                    await self._settle(part)
                    yield Delta(index, number, part.text, tuple(part.tokens))
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
        readers = [reader for text in self._texts for reader in text.readers]
        for reader in readers:
            await self._end(reader)
        for reader in readers:
            await self._settle(reader)
        return self.results()

    async def _end(self, reader: Reader) -> None:
        """Wait until a reader is over, its alternatives too, and let the next window follow."""
        await reader.end()
        self._read += 1
        if reader.others is not None:
            await reader.others.end()
            self._read += 1
        if reader.misplaced and reader.forcing is not None:
            self._force(reader)
        self._submit()

    def _force(self, reader: Reader) -> None:
        assert reader.forcing is not None
        try:
            self._accepted |= self._accept([reader.forcing])
        except ServiceError:  # fewer slots than beams, or a server that shuts down
            reader.forcing = None

    async def _settle(self, reader: Reader) -> None:
        """Wait for what is decoded once more, with what was missing forced; it may fail."""
        if reader.misplaced and reader.forcing is not None:
            with contextlib.suppress(ServiceError):  # what there is will do, with its warnings
                await reader.forcing.end()
            self._read += 1
            reader.adopt(reader.forcing)

    def _accept(self, readers: Sequence[Reader]) -> dict[int, Reader]:
        return self._door.submit(readers, self._deadline - self._loop.time(), self._group)

    def results(self) -> list[Result]:
        """Return the results, once `deltas` has been read to its end."""
        total_s = self._loop.time() - self._began_at
        return [result_of(text, total_s) for text in self._texts]
