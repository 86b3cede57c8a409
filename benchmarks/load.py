"""`python -m benchmarks.load`: does a job of HTTP requests from standard input; answers in JSON.

A process of its own with as little work per request as possible, since it shares the cores with
the server: bodies are made beforehand, and answers are parsed only for their ends. It says what
share of a core it took.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to send.

    Attributes:
        bodies: JSON texts, sent in turn.
        clients: of a closed loop; each sends its next request once it has its answer.
        seconds: of a closed loop; requests that end later are not counted.
        warm_s: of a closed loop, before `seconds`: requests that end in it are not counted.
        requests: of a closed loop, instead of `seconds`: so many in all.
        arrivals: of an open loop: moments in seconds; latencies count from them.
        keeps: return so many answers' bodies.
    """

    port: int
    bodies: Sequence[str]
    path: str = "/translate"
    clients: int = 1
    seconds: float = 0.0
    warm_s: float = 0.0
    requests: int = 0
    arrivals: Sequence[float] = ()
    timeout_s: float = 30.0
    keeps: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of a job.

    Attributes:
        latencies: seconds of each answer with status 200, in the order of their ends.
        first_s: seconds to the first delta of each stream.
        gaps_s: seconds between chunks of streams.
        statuses: {status: count}; 0 for requests that got no answer in time.
        seconds: that `latencies` were collected in.
        cpu_share: of a core, taken by the sender.
        late_p99_s: how late the sender itself was in an open loop.
        answers: {number of the body: what was answered}.
    """

    latencies: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_share: float = 0.0
    late_p99_s: float = 0.0
    answers: dict[int, str] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        """Answers with status 200 in a second."""
        return len(self.latencies) / self.seconds

    @property
    def failed(self) -> int:
        """Requests that were refused, failed or got no answer in time."""
        return sum(count for status, count in self.statuses.items() if status != 200)


def send(job: Job) -> Outcome:
    """Do a job in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the sender failed: {done.stderr.strip().splitlines()[-1:]}")
    found = json.loads(done.stdout)
    for name in ("statuses", "answers"):
        found[name] = {int(key): value for key, value in found[name].items()}
    return Outcome(**found)


async def run(job: Job) -> Outcome:
    """Do a job in this process."""
    return await _Sender(job).run()


class _Connection(asyncio.Protocol):
    """One connection that is kept: a request at a time, its answer and when its parts came."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[int] | None = None
        self.begin()

    def begin(self) -> None:
        self.body = bytearray()
        self.moments: list[float] = []  # of deltas
        self._head = bytearray()
        self._status, self._length, self._is_chunked = 0, -1, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish(self._status if self._length < 0 and not self._is_chunked else 0)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def send(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future is its status, once the answer is whole."""
        assert self._transport is not None
        self.begin()
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def _finish(self, status: int) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(status)

    def data_received(self, data: bytes) -> None:
        if not self._status:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._read_head(bytes(self._head[:end]).lower())
            data = bytes(self._head[end + 4 :])
        self.body += data
        if self._is_chunked:
            if b"event: delta" in data or b"event:delta" in data:
                self.moments.append(time.perf_counter())
            if self.body.endswith(b"\r\n0\r\n\r\n"):
                self._finish(self._status)
        elif len(self.body) >= self._length >= 0:
            self._finish(self._status)

    def _read_head(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        self._status = int(lines[0].split(b" ")[1])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                self._length = int(value)
            elif name == b"transfer-encoding":
                self._is_chunked = b"chunked" in value


class _Sender:
    def __init__(self, job: Job) -> None:
        self.job, self.outcome = job, Outcome()
        self._requests = [_request(job, body.encode()) for body in job.bodies]
        self._next = 0
        self._free: list[_Connection] = []
        self._late: list[float] = []

    async def run(self) -> Outcome:
        cpu, began = time.process_time(), time.perf_counter()
        if self.job.arrivals:
            await self._open_loop(began)
        else:
            await self._closed_loop(began)
        took = time.perf_counter() - began
        for connection in self._free:
            connection.close()
        await asyncio.sleep(0)  # in which they are closed
        if not self.outcome.seconds:
            self.outcome.seconds = took
        self.outcome.cpu_share = (time.process_time() - cpu) / took
        if self._late:
            self.outcome.late_p99_s = sorted(self._late)[int(0.99 * (len(self._late) - 1))]
        return self.outcome

    async def _closed_loop(self, began: float) -> None:
        job = self.job
        end = began + job.warm_s + job.seconds if job.seconds else None
        left = job.requests

        async def client() -> None:
            nonlocal left
            while (end is None and left > 0) or (end and time.perf_counter() < end):
                left -= 1
                await self._one(time.perf_counter(), end)

        await asyncio.gather(*(client() for _ in range(job.clients)))
        if end is not None:
            self.outcome.seconds = job.seconds

    async def _open_loop(self, began: float) -> None:
        tasks = []
        for moment in self.job.arrivals:
            due = began + moment
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._late.append(time.perf_counter() - due)
            tasks.append(asyncio.create_task(self._one(due, None)))
        await asyncio.gather(*tasks)

    async def _one(self, due: float, end: float | None) -> None:
        number = self._next % len(self._requests)
        self._next += 1
        connection = await self._connection()
        try:
            async with asyncio.timeout(self.job.timeout_s):
                status = await connection.send(self._requests[number])
        except TimeoutError:
            status = 0
        now = time.perf_counter()
        if status:
            self._free.append(connection)
        else:
            connection.close()
        if end is None or end - self.job.seconds <= now <= end:
            self._count(number, status, due, now, connection)

    def _count(
        self, number: int, status: int, due: float, now: float, connection: _Connection
    ) -> None:
        found = self.outcome
        is_whole = b"event: error" not in connection.body
        status = status if is_whole else 500
        found.statuses[status] = found.statuses.get(status, 0) + 1
        if status != 200:
            return
        found.latencies.append(now - due)
        moments = connection.moments
        if moments:
            found.first_s.append(moments[0] - due)
            found.gaps_s += [b - a for a, b in pairwise(moments)]
        if number < self.job.keeps:
            found.answers[number] = connection.body.decode()

    async def _connection(self) -> _Connection:
        while self._free:
            kept = self._free.pop()
            if kept.is_open:
                return kept
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Connection, "127.0.0.1", self.job.port)
        return made


def _request(job: Job, body: bytes) -> bytes:
    head = (
        f"POST {job.path} HTTP/1.1\r\nhost: 127.0.0.1:{job.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    """Read a job, do it, and write the outcome."""
    job: dict[str, Any] = json.load(sys.stdin)
    outcome = asyncio.run(run(Job(**job)))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
