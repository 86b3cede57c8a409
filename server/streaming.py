"""Deltas as server-sent events, and the watcher that gives up what nobody waits for any more."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.sse import ServerSentEvent

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

_Answer = TypeVar("_Answer")


def event(data: dict[str, Any], name: str | None = None) -> ServerSentEvent:
    """Return one event with compact JSON in one line, however a client splits lines."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_LINE_ENDS)
    return ServerSentEvent(raw_data=text, event=name)


def outcome(error: ServiceError) -> str:
    """Return how a stream that ends with `error` is counted."""
    if isinstance(error, DeadlineExceeded):
        return "expired"
    return "rejected" if isinstance(error, Draining) else "failed"


async def events(
    request: Request,
    deltas: AsyncIterator[Delta],
    each: Callable[[Delta], list[ServerSentEvent]],
    last: Callable[[], list[ServerSentEvent]],
    failed: Callable[[dict[str, Any]], ServerSentEvent],
) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of every delta, then `last`'s, or one made by `failed`.

    The status has gone out before, so that a client can tell a failure only by its event: whatever
    is raised becomes one.
    """
    request.state.outcome = "cancelled"  # unless it is read to its end
    try:
        async for delta in deltas:
            for one in each(delta):
                yield one
        for one in last():
            yield one
        request.state.outcome = "ok"
    except ServiceError as error:
        request.state.error, request.state.outcome = error, outcome(error)
        yield failed(problem(error, request))
    except Exception:
        logger.exception("a stream failed")
        fault = GenerationFailed("something failed in the server; its log has more")
        request.state.error, request.state.outcome = fault, "failed"
        yield failed(problem(fault, request))


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
