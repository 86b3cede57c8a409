"""GuardedProtocol: HTTP/1.1 connections that do not wait for a request's headers for ever."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class GuardedProtocol(H11Protocol):
    """Closes a connection whose next request's headers take longer than `header_timeout_s`.

    uvicorn bounds only the time between requests, and only until the next byte. A request that is
    being answered is never touched.
    """

    header_timeout_s = 10.0
    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Read on; wait for headers unless a request is under way."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_expecting()
        elif self._closing is None:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_expecting()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._closing = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _stop_expecting(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None


def guarded(header_timeout_s: float) -> type[GuardedProtocol]:
    """Return the protocol with its timeout: uvicorn makes an instance for each connection."""
    return type("Guarded", (GuardedProtocol,), {"header_timeout_s": header_timeout_s})
