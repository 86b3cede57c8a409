"""Over HTTP: closed loops of requests to `stele serve`, in turns with engines called directly."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from benchmarks import servers
from benchmarks.bench import REST_S, THREADS, Bench
from benchmarks.direct import LONGEST
from benchmarks.figures import (
    Paired,
    equal_share,
    in_turns,
    paired,
    spread,
)
from benchmarks.load import Job, Outcome, send
from benchmarks.servers import Server
from benchmarks.worker import Worker

SLOTS = 64


def bodies(texts: Sequence[str], a_request: int = 1, **fields: Any) -> list[str]:
    """Return JSON bodies that translate `texts` to German, `a_request` of them in each."""
    chunks = [texts[at : at + a_request] for at in range(0, len(texts), a_request)]
    return [
        json.dumps(
            {
                "q": chunk[0] if a_request == 1 else chunk,
                "source": "en",
                "target": "de",
                "max_new_tokens": LONGEST,  # which is what peers stop at
                **fields,
            }
        )
        for chunk in chunks
    ]


def described(outcome: Outcome, texts_a_request: int = 1) -> dict[str, Any]:
    """Return an outcome's figures for the JSON file, in seconds and per second."""
    return {
        "texts_per_s": outcome.per_s * texts_a_request,
        "latency_s": spread(outcome.latencies),
        "first_token_s": spread(outcome.first_s),
        "inter_token_s": spread(outcome.gaps_s),
        "not_ok": outcome.failed,
        "statuses": outcome.statuses,
        "client_cpu_share": outcome.cpu_share,
        "client_late_p99_s": outcome.late_p99_s,
    }


def rate_of(job: Job) -> float:
    """Return requests per second; raises RuntimeError where any failed."""
    outcome = send(job)
    if outcome.failed:
        raise RuntimeError(f"requests failed: {outcome.statuses}")
    if not outcome.latencies:
        raise RuntimeError(f"no request ended within {job.seconds:g} s")
    return outcome.per_s


def inverted(rates: Sequence[float]) -> list[float]:
    """Return seconds for each; `paired` compares those."""
    return [1 / rate for rate in rates]


def capacity(server: Server, bench: Bench, **fields: Any) -> float:
    """Return requests per second of 64 clients that send a few each."""
    job = Job(
        port=server.port,
        bodies=bodies(bench.mixed, **fields),
        clients=SLOTS,
        requests=SLOTS * (2 if bench.is_quick else 4),
    )
    time.sleep(REST_S)
    return rate_of(job)


# -- the bundled model over HTTP against engines called directly ----------------------------------


def over_http(bench: Bench, until: float) -> None:
    """Batch 1 and 64 against CTranslate2 called directly; 16 texts a request against our engine."""
    with ExitStack() as stack:
        server = stack.enter_context(servers.stele(bench.bundled, latent_cache_bytes=0))
        stele = stack.enter_context(Worker("stele", bench.bundled, precision="int8", rows=SLOTS))
        peers = {
            name: stack.enter_context(
                Worker("ctranslate2", bench.converted("bundled"), intra=intra, inter=inter)
            )
            for name, (intra, inter) in THREADS.items()
        }
        server.wait()
        stele.wait()
        section = bench.results.sections.setdefault("http", {})
        _closed_loops(bench, server, section)
        _own(bench, server, stele, section, until - 0.55 * (until - time.monotonic()))
        try:
            for worker in peers.values():
                worker.wait()
            _against_direct(bench, server, peers, section, until)
        finally:
            bench.remember("stele serve, bundled, int8", server.loaded, server.memory())


def _closed_loops(bench: Bench, server: Server, section: dict[str, Any]) -> None:
    """Single texts from 1, 8 and 64 clients."""
    section["closed loop, single texts"] = found = {}
    for clients in (8, 1, 8, 64):  # the first warms up
        job = Job(
            port=server.port,
            bodies=bodies(bench.mixed),
            clients=clients,
            warm_s=0.5,
            seconds=bench.seconds(3),
        )
        outcome = send(job)
        found[f"{clients} clients"] = described(outcome)
    rates = ", ".join(f"{name}: {figures['texts_per_s']:.0f}/s" for name, figures in found.items())
    bench.say(f"closed loop, single texts: {rates}")


def over_http_base(bench: Bench, until: float) -> None:
    """Marian base: 16 texts a request against our engine, targets of equal length."""
    with ExitStack() as stack:
        server = stack.enter_context(servers.stele(bench.base, latent_cache_bytes=0))
        stele = stack.enter_context(Worker("stele", bench.base, precision="int8", rows=SLOTS))
        server.wait()
        stele.wait()
        section = bench.results.sections.setdefault("http, base", {})
        _own(bench, server, stele, section, until, "own_base", longest=32)


def _own(
    bench: Bench,
    server: Server,
    stele: Worker,
    section: dict[str, Any],
    until: float,
    key: str = "own",
    longest: int = LONGEST,
) -> None:
    """Saturate the server, and give the same texts to the engine itself."""
    texts, window_s = bench.mixed, bench.seconds(4)

    def served(a_request: int, clients: int) -> Callable[[], float]:
        job = Job(
            port=server.port,
            bodies=bodies(texts, a_request, max_new_tokens=longest),
            clients=clients,
            warm_s=1,
            seconds=window_s,
        )
        return lambda: 1 / (rate_of(job) * a_request)

    subjects = {
        "engine": lambda: 1 / stele.texts_per_s(texts, "de", 1, window_s, longest),
        "served, 16 texts": served(16, 8),
        "served, single texts": served(1, SLOTS),
    }
    subjects["engine"]()  # warm up
    found = in_turns(subjects, turns=bench.turns, until=until, rest_s=REST_S)
    ratio = paired(found["engine"], found["served, 16 texts"])
    single = paired(found["engine"], found["served, single texts"])
    bench.results.ratios[key] = ratio
    bench.results.notes[key] = f"single texts from {SLOTS} clients: {single.median:.2f}"
    section["own"] = {
        "texts_per_s": {name: inverted(each) for name, each in found.items()},
        "ratio": ratio.as_json(),
        "ratio, single texts": single.as_json(),
    }
    bench.say(f"served / engine: {short(ratio)}, single texts {short(single)}")


def _against_direct(
    bench: Bench,
    server: Server,
    peers: dict[str, Worker],
    section: dict[str, Any],
    until: float,
) -> None:
    """Text to text both, with one text at a time and with 64."""
    half = until - (until - time.monotonic()) / 2
    for size, count, stop in ((1, 32, half), (64, 256, until)):
        texts = bench.mixed[:count]
        chunks = [texts[at : at + size] for at in range(0, count, size)]
        direct = {name: _Direct(worker, chunks) for name, worker in peers.items()}
        served = _Served(Job(port=server.port, bodies=bodies(texts, size), requests=len(chunks)))
        for subject in direct.values():
            subject()  # warm up
        calibration = {name: subject() for name, subject in direct.items()}
        threads = min(calibration, key=calibration.__getitem__)
        subjects: dict[str, Callable[[], float]] = {
            "ctranslate2": direct[threads],
            "stele": served,
        }
        found = in_turns(subjects, turns=bench.turns, until=stop, rest_s=REST_S)
        ratio = paired(found["ctranslate2"], found["stele"])
        equal = equal_share(served.translated, direct[threads].translated)
        bench.results.ratios[f"http_{size}"] = ratio
        section[f"against CTranslate2 called directly, batch {size}"] = {
            "seconds": found,
            "texts": count,
            "ratio": ratio.as_json(),
            "ctranslate2_threads": threads,
            "calibration_s": calibration,
            "equal": equal,
        }
        bench.say(
            f"HTTP, batch {size}, x CTranslate2 called directly ({threads}): {short(ratio)}, "
            f"equal {equal:.0%}"
        )


class _Direct:
    """Translates chunk by chunk, in seconds."""

    def __init__(self, worker: Worker, chunks: list[list[str]]) -> None:
        self._worker, self._chunks = worker, chunks
        self.translated: list[str] = []

    def __call__(self) -> float:
        answers = [self._worker.translate_texts(chunk, "de") for chunk in self._chunks]
        self.translated = [text for _, found in answers for text in found]
        return sum(seconds for seconds, _ in answers)


class _Served:
    """Sends every request of a job once, one after the other, in seconds."""

    def __init__(self, job: Job) -> None:
        self._job = replace(job, keeps=job.requests)
        self.translated: list[str] = []

    def __call__(self) -> float:
        outcome = send(self._job)
        self.translated = texts_of(outcome, self._job.requests)
        return outcome.seconds


def texts_of(outcome: Outcome, count: int) -> list[str]:
    """Return the translations of the first `count` bodies, in order."""
    found: list[str] = []
    for number in range(count):
        answer = json.loads(outcome.answers[number])["translatedText"]
        found += answer if isinstance(answer, list) else [answer]
    return found


def short(ratio: Paired) -> str:
    """Return a ratio and its extremes as people read them."""
    return f"{ratio.median:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"
