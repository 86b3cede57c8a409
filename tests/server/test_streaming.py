"""What stands between deltas and the socket, without a server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message, Scope

from server.errors import ClientGone
from server.streaming import EventStream, event, while_connected


class Client:
    """The ASGI side of one connection."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.has_left = asyncio.Event()

    async def receive(self) -> Message:
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def request(self) -> Request:
        return Request(self.scope, self.receive)

    @property
    def scope(self) -> Scope:
        return {"type": "http", "headers": [], "method": "POST", "path": "/"}

    @property
    def bodies(self) -> list[Any]:
        return [message["body"] for message in self.sent[1:]]


def test_an_event_is_one_line_of_compact_json() -> None:
    assert event({"text": "ä\n\u2028", "segment": 1}, "delta") == (
        'event: delta\ndata: {"text":"ä\\n\\u2028","segment":1}\n\n'.encode()
    )
    assert event({"a": None}) == b'data: {"a":null}\n\n'


def test_what_is_ready_together_leaves_as_one_message() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two and three"

    async def serve() -> Client:
        client = Client()
        await EventStream(chunks())(client.scope, client.receive, client.send)
        return client

    client = asyncio.run(serve())
    assert dict(client.sent[0]["headers"]) == {
        b"cache-control": b"no-cache",
        b"x-accel-buffering": b"no",
        b"content-type": b"text/event-stream; charset=utf-8",
    }
    assert client.bodies == [b"one", b"two and three", b""]
    assert [message.get("more_body") for message in client.sent[1:]] == [True, True, False]


def test_a_stream_ends_when_its_client_leaves() -> None:
    async def serve() -> Client:
        client = Client()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            client.has_left.set()
            await asyncio.Event().wait()
            yield b"two"

        await EventStream(chunks())(client.scope, client.receive, client.send)
        return client

    assert asyncio.run(serve()).bodies == [b"one"]


def test_an_idle_stream_pings_and_a_busy_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventStream, "ping_s", 0.001)

    async def serve() -> Client:
        client = Client()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            while b": ping\n\n" not in client.bodies:
                await asyncio.sleep(0)
            monkeypatch.setattr(EventStream, "ping_s", 60.0)
            await asyncio.sleep(0)
            for _ in range(100):
                yield b"more"
                await asyncio.sleep(0)

        await EventStream(chunks())(client.scope, client.receive, client.send)
        return client

    bodies = asyncio.run(serve()).bodies
    assert bodies[0] == b"one"
    assert bodies.index(b"more") > 1
    assert b": ping\n\n" not in bodies[bodies.index(b"more") :]


def test_work_is_cancelled_when_its_client_leaves() -> None:
    async def serve() -> list[str]:
        client, seen = Client(), []

        async def work() -> None:
            client.has_left.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("given up")

        with pytest.raises(ClientGone):
            await while_connected(client.request, work())
        await asyncio.sleep(0)  # would raise if a cancellation were left over
        return seen

    assert asyncio.run(serve()) == ["given up"]


def test_work_that_ends_as_its_client_leaves_is_not_cancelled_afterwards() -> None:
    async def serve() -> str:
        client = Client()
        ending = asyncio.get_running_loop().create_future()

        async def work() -> str:
            await ending
            return "done"

        def both() -> None:
            ending.set_result(None)
            client.has_left.set()

        asyncio.get_running_loop().call_later(0.001, both)
        answer = await while_connected(client.request, work())
        for _ in range(5):
            await asyncio.sleep(0)
        return answer

    assert asyncio.run(serve()) == "done"


def test_a_cancellation_from_outside_stays_one() -> None:
    async def serve() -> None:
        client = Client()
        task = asyncio.ensure_future(
            while_connected(client.request, asyncio.sleep(60, result="never"))
        )
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())


def test_what_work_raises_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("no")

    async def serve() -> None:
        with pytest.raises(ValueError, match="no"):
            await while_connected(Client().request, fail())

    asyncio.run(serve())
