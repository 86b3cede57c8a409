"""Deltas as server-sent events, and the watcher that gives up what nobody waits for any more."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.errors import (
    ClientGone,
    DeadlineExceeded,
    Draining,
    GenerationFailed,
    ServiceError,
)
from server.problems import problem
from server.reading import Delta

logger = logging.getLogger(__name__)

_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_EVENT = {name: {"type": "string"} for name in ("data", "event")}
EVENTS: dict[int | str, dict[str, Any]] = {  # for OpenAPI
    200: {
        "description": "Server-sent events.",
        "content": {"text/event-stream": {"itemSchema": {"type": "object", "properties": _EVENT}}},
    }
}

_Answer = TypeVar("_Answer")


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    """Return one event as it is sent: compact JSON in one line, however a client splits lines."""
    text = _encode(data).translate(_LINE_ENDS)
    line = f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"
    return line.encode()


def outcome(error: ServiceError) -> str:
    """Return how a stream that ends with `error` is counted."""
    if isinstance(error, DeadlineExceeded):
        return "expired"
    return "rejected" if isinstance(error, Draining) else "failed"


async def events(
    request: Request,
    deltas: AsyncIterator[Delta],
    each: Callable[[Delta], bytes],
    last: Callable[[], bytes],
    failed: Callable[[dict[str, Any]], bytes],
) -> AsyncIterator[bytes]:
    """Yield the events of every delta, then `last`'s, or one made by `failed`.

    The status has gone out before, so that a client can tell a failure only by its event: whatever
    is raised becomes one.
    """
    request.state.outcome = "cancelled"  # unless it is read to its end
    try:
        async for delta in deltas:
            if ready := each(delta):
                yield ready
        yield last()
        request.state.outcome = "ok"
    except ServiceError as error:
        request.state.error, request.state.outcome = error, outcome(error)
        yield failed(problem(error, request))
    except Exception:
        logger.exception("a stream failed")
        fault = GenerationFailed("something failed in the server; its log has more")
        request.state.error, request.state.outcome = fault, "failed"
        yield failed(problem(fault, request))


class EventStream(Response):
    """Server-sent events: what is ready together leaves as one message, and pings while idle.

    FastAPI's own hands each event through three tasks and a model, which costs several times as
    much as all the rest of an event.
    """

    media_type = "text/event-stream"
    ping_s = 15.0  # proxies close what is silent for longer

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        """Send `chunks`, each of which holds whole events."""
        self._chunks = chunks
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._turn = asyncio.Lock()  # for sending
        self._sent_at = asyncio.get_running_loop().time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop when the client leaves."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        pinging = asyncio.ensure_future(self._ping(send))
        try:
            await while_connected(Request(scope, receive), self._write(send))
        except ClientGone:  # whoever submitted the request withdraws it
            pass
        finally:
            pinging.cancel()

    async def _write(self, send: Send) -> None:
        async for chunk in self._chunks:
            await self._send(send, chunk)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send) -> None:
        time = asyncio.get_running_loop().time
        while True:
            idle_s = time() - self._sent_at
            if idle_s >= self.ping_s:
                await self._send(send, b": ping\n\n")
            else:
                await asyncio.sleep(self.ping_s - idle_s)

    async def _send(self, send: Send, chunk: bytes) -> None:
        async with self._turn:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._sent_at = asyncio.get_running_loop().time()


async def while_connected(request: Request, work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Do `work`, but give it up when the client leaves; the request's body must have been read.

    Raises:
        ClientGone: the client left first; `work` has been cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = True
        task.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and not task.uncancel():  # nobody else cancelled
            raise ClientGone("the client left before its answer was ready") from None
        raise
    finally:
        watching.cancel()  # before it has run again, so that it cancels nothing any more
