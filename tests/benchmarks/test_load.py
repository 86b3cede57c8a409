"""The sender of requests against a small server on loopback, in this process."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.load import Job, Outcome, run

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def whole(text: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def sent(job: Callable[[int], Job], answer: Answer) -> tuple[Outcome, int]:
    """Return the outcome of a job, and how many connections it opened."""
    connections = 0
    handlers: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        handlers.append(asyncio.current_task())
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                await answer((await reader.readexactly(length)).decode(), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def both() -> Outcome:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            outcome = await run(job(server.sockets[0].getsockname()[1]))
            await asyncio.gather(*(task for task in handlers if task is not None))
            return outcome

    return asyncio.run(both()), connections


async def echo(body: str, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(body))


def test_a_closed_loop_sends_every_body_and_keeps_its_connections() -> None:
    bodies = [json.dumps({"q": str(number)}) for number in range(10)]
    outcome, connections = sent(
        lambda port: Job(port=port, bodies=bodies, clients=2, requests=10, keeps=3), echo
    )
    assert outcome.statuses == {200: 10}
    assert len(outcome.latencies) == 10
    assert outcome.answers == {number: bodies[number] for number in range(3)}
    assert connections == 2
    assert outcome.per_s == 10 / outcome.seconds


def test_an_open_loop_sends_one_request_for_each_arrival() -> None:
    outcome, _ = sent(
        lambda port: Job(port=port, bodies=["{}"], arrivals=[0.0, 0.001, 0.001, 0.002]), echo
    )
    assert outcome.statuses == {200: 4}
    assert outcome.late_p99_s >= 0


def test_refusals_and_missing_answers_are_counted_and_have_no_latency() -> None:
    async def refuse(body: str, writer: asyncio.StreamWriter) -> None:
        if body == "silent":
            return
        writer.write(whole("no", "429 Too Many Requests"))

    outcome, _ = sent(
        lambda port: Job(port=port, bodies=["silent", "{}"], requests=2, timeout_s=0.05), refuse
    )
    assert outcome.statuses == {0: 1, 429: 1}
    assert (outcome.failed, outcome.latencies) == (2, [])


@pytest.mark.parametrize(("last", "status"), [("done", 200), ("error", 500)])
def test_a_stream_is_read_to_its_end_and_one_with_an_error_has_failed(
    last: str, status: int
) -> None:
    async def stream(body: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for name in ("delta", "delta", "delta", last):
            text = f"event: {name}\ndata: 0\n\n".encode()
            writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    outcome, _ = sent(lambda port: Job(port=port, bodies=["{}"], requests=2), stream)
    assert outcome.statuses == {status: 2}
    assert len(outcome.first_s) == (2 if status == 200 else 0)
    assert all(gap >= 0 for gap in outcome.gaps_s)
