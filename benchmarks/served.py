"""Over HTTP: closed and open loops of requests to `stele serve` and to its peers, in turns."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import servers
from benchmarks.bench import REST_S, THREADS, Bench
from benchmarks.direct import LONGEST
from benchmarks.figures import (
    Paired,
    equal_share,
    highest,
    in_turns,
    paired,
    percentile,
    poisson_arrivals,
    spread,
    summary,
)
from benchmarks.load import Job, Outcome, send
from benchmarks.servers import ROOT, Server
from benchmarks.worker import Worker

SLOTS = 64
BOUND_S = 0.25  # of p99, where goodput at equal p99 is asked for
RATES = (0.25, 0.5, 0.75)  # of the lower capacity, in open loops


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
    if outcome.failed or not outcome.latencies:
        raise RuntimeError(f"requests failed: {outcome.statuses}")
    return outcome.per_s


def inverted(rates: Sequence[float]) -> list[float]:
    """Return seconds for each; `paired` compares those."""
    return [1 / rate for rate in rates]


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


def _own(
    bench: Bench, server: Server, stele: Worker, section: dict[str, Any], until: float
) -> None:
    """Saturate the server, and give the same texts to the engine itself."""
    texts, window_s = bench.mixed, bench.seconds(4)

    def served(a_request: int, clients: int) -> Callable[[], float]:
        job = Job(
            port=server.port,
            bodies=bodies(texts, a_request),
            clients=clients,
            warm_s=1,
            seconds=window_s,
        )
        return lambda: 1 / (rate_of(job) * a_request)

    subjects = {
        "engine": lambda: 1 / stele.texts_per_s(texts, "de", 1, window_s),
        "served, 16 texts": served(16, 8),
        "served, single texts": served(1, SLOTS),
    }
    subjects["engine"]()  # warm up
    found = in_turns(subjects, turns=bench.turns, until=until, rest_s=REST_S)
    ratio = paired(found["engine"], found["served, 16 texts"])
    single = paired(found["engine"], found["served, single texts"])
    bench.results.ratios["own"] = ratio
    bench.results.notes["own"] = f"single texts from {SLOTS} clients: {single.median:.2f}"
    section["own"] = {
        "texts_per_s": {name: inverted(each) for name, each in found.items()},
        "ratio": ratio.as_json(),
        "ratio, single texts": single.as_json(),
    }
    bench.say(f"served / engine: {_short(ratio)}, single texts {_short(single)}")


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
            f"HTTP, batch {size}, x CTranslate2 called directly ({threads}): {_short(ratio)}, "
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
        self.translated = _texts_of(outcome, self._job.requests)
        return outcome.seconds


def _texts_of(outcome: Outcome, count: int) -> list[str]:
    found: list[str] = []
    for number in range(count):
        answer = json.loads(outcome.answers[number])["translatedText"]
        found += answer if isinstance(answer, list) else [answer]
    return found


def _short(ratio: Paired) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"


# -- independent arrivals, beside CTranslate2 behind a dynamic batcher ----------------------------


def open_loop(bench: Bench, until: float) -> None:
    """Poisson arrivals at several rates; then the goodput of each at equal p99."""
    with ExitStack() as stack:
        stele = stack.enter_context(servers.stele(bench.bundled, latent_cache_bytes=0)).wait()
        peers = {}
        for name, (intra, inter) in THREADS.items():
            started = servers.ctranslate2(bench.converted("bundled"), intra=intra, inter=inter)
            peers[name] = stack.enter_context(started)
        for server in peers.values():
            server.wait()
        section = bench.results.sections.setdefault("open loop", {})
        calibration = {name: capacity(server, bench) for name, server in peers.items()}
        threads = max(calibration, key=calibration.__getitem__)
        chosen = {"stele": stele, "ctranslate2": peers[threads]}
        section["ctranslate2_threads"], section["calibration_per_s"] = threads, calibration
        capacities = {name: capacity(server, bench) for name, server in chosen.items()}
        section["capacity_per_s"] = capacities
        shown = ", ".join(f"{name} {rate:.0f}/s" for name, rate in capacities.items())
        bench.say(f"capacity, 64 clients: {shown} (CTranslate2: {threads})")
        _at_rates(bench, chosen, min(capacities.values()), section)
        _at_equal_p99(bench, chosen, capacities, section, until)
        for name, server in chosen.items():
            bench.remember(f"open loop: {name}", server.loaded, server.memory())


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


def _at_rates(
    bench: Bench, chosen: dict[str, Server], lowest: float, section: dict[str, Any]
) -> None:
    """The same arrivals for all; Stele once more with streams, for the moments of tokens."""
    subjects = [(name, server, "/translate") for name, server in chosen.items()]
    subjects.append(("stele, streaming", chosen["stele"], "/translate/stream"))
    section["rates"] = found = []
    for share in RATES:
        rate = share * lowest
        arrivals = poisson_arrivals(rate, bench.seconds(4), seed=round(100 * share))
        for name, server, path in subjects:
            job = Job(
                port=server.port,
                path=path,
                bodies=bodies(bench.mixed),
                arrivals=arrivals,
                timeout_s=10,
            )
            time.sleep(REST_S)
            outcome = send(job)
            figures = {"server": name, "share": share, "rate_per_s": rate}
            figures["goodput_per_s"] = goodput(outcome, bench.seconds(4))
            found.append(figures | described(outcome))
        latest = ", ".join(f"{f['server']} {_p99(f)}" for f in found[-len(subjects) :])
        bench.say(f"open loop at {rate:.0f}/s: p99 {latest}")


def _p99(figures: dict[str, Any]) -> str:
    latency = figures["latency_s"]
    return f"{1000 * latency['p99']:.0f} ms" if latency else "-"


def goodput(outcome: Outcome, seconds: float) -> float:
    """Return answers within the bound, by second of arrivals."""
    return sum(latency <= BOUND_S for latency in outcome.latencies) / seconds


def _at_equal_p99(
    bench: Bench,
    chosen: dict[str, Server],
    capacities: dict[str, float],
    section: dict[str, Any],
    until: float,
) -> None:
    """Step the rate to the highest whose p99 stays below the bound, for each in turn."""
    window_s, steps = bench.seconds(3), 3 if bench.is_quick else 4
    tried: list[dict[str, Any]] = []

    def search(name: str) -> float:
        def fits(rate: float) -> bool:
            arrivals = poisson_arrivals(rate, window_s, seed=len(tried))
            job = Job(
                port=chosen[name].port,
                bodies=bodies(bench.mixed),
                arrivals=arrivals,
                timeout_s=20 * BOUND_S,
            )
            time.sleep(REST_S)
            outcome = send(job)
            p99 = percentile(outcome.latencies, 0.99) if outcome.latencies else float("inf")
            is_good = p99 <= BOUND_S and not outcome.failed
            tried.append({"server": name, "rate_per_s": rate, "p99_s": p99, "fits": is_good})
            return is_good

        return highest(fits, 0.25 * capacities[name], 1.2 * capacities[name], steps)

    subjects = {name: partial(search, name) for name in chosen}
    found = in_turns(subjects, turns=bench.turns, until=until)
    section["equal p99"] = {"bound_s": BOUND_S, "tried": tried, "goodput_per_s": found}
    if not all(found["ctranslate2"]):
        raise RuntimeError(f"CTranslate2 kept p99 below {BOUND_S} s at no rate that was tried")
    ratios = [s / c for s, c in zip(found["stele"], found["ctranslate2"], strict=True)]
    bench.results.ratios["batcher"] = summary(ratios)
    bench.results.notes["batcher"] = f"p99 at most {1000 * BOUND_S:.0f} ms"
    shown = ", ".join(f"{name} {max(rates):.0f}/s" for name, rates in found.items())
    bench.say(f"goodput with p99 within {BOUND_S} s: {shown}: {_short(summary(ratios))}")


# -- LibreTranslate -------------------------------------------------------------------------------


def beside_libretranslate(bench: Bench, until: float) -> None:
    """Requests per second at concurrency 16, the same beam search in both; greedily beside."""
    python = ROOT / ".venv-libretranslate" / "bin" / "python"
    if not python.exists():
        raise RuntimeError("there is no .venv-libretranslate; `make bench` makes it if it can")
    argos = bench.folder / "argos"
    best = {"ARGOS_INTRA_THREADS": "1", "ARGOS_INTER_THREADS": "2"}
    with ExitStack() as stack:
        started = {
            "libretranslate": servers.libretranslate(python, argos),
            "libretranslate, intra 1, inter 2": servers.libretranslate(python, argos, best),
            "stele": servers.stele(bench.bundled, latent_cache_bytes=0),
        }
        for server in started.values():
            stack.enter_context(server)
        for server in started.values():
            server.wait()
        _turns_with_libretranslate(bench, started, until)
        for name, server in started.items():
            bench.remember(f"concurrency 16: {name}", server.loaded, server.memory())


def _turns_with_libretranslate(bench: Bench, started: dict[str, Server], until: float) -> None:
    def subject(server: Server, **fields: Any) -> Callable[[], float]:
        job = Job(
            port=server.port,
            bodies=bodies(bench.mixed, **fields),
            clients=16,
            warm_s=1,
            seconds=bench.seconds(4),
        )
        return lambda: 1 / rate_of(job)

    theirs = [name for name in started if name != "stele"]
    subjects = {name: subject(started[name]) for name in theirs}
    subjects["stele"] = subject(started["stele"], num_beams=4)
    subjects["stele, greedy"] = subject(started["stele"])
    for name in theirs:
        subjects[name]()  # it loads its model with the first request
    found = in_turns(subjects, turns=bench.turns, until=until, rest_s=REST_S)
    rates = {name: inverted(seconds) for name, seconds in found.items()}
    fastest = max(theirs, key=lambda name: sum(rates[name]))
    ratio = paired(found[fastest], found["stele"])
    greedy = paired(found[fastest], found["stele, greedy"])
    default = paired(found["libretranslate"], found["stele"])
    bench.results.ratios["libretranslate"] = ratio
    bench.results.notes["libretranslate"] = (
        f"1.9.6 offline: its sentence splitter replaced by sentencex, its tokenizer adding >>xx<< "
        f"and </s>; {fastest.removeprefix('libretranslate, ')}, its fastest threads: "
        f"x its defaults {default.median:.1f}; Stele greedily {greedy.median:.1f}"
    )
    texts = bench.mixed[:32]
    answers = {
        name: _texts_of(
            send(Job(port=server.port, bodies=bodies(texts, **fields), requests=32, keeps=32)), 32
        )
        for name, server, fields in (
            ("stele", started["stele"], {"num_beams": 4}),
            (fastest, started[fastest], {}),
        )
    }
    bench.results.sections["libretranslate"] = {
        "requests_per_s": rates,
        "ratio": ratio.as_json(),
        "ratio to its defaults": default.as_json(),
        "ratio, greedy": greedy.as_json(),
        "equal": equal_share(answers["stele"], answers[fastest]),
    }
    shown = ", ".join(f"{name} {max(each):.0f}/s" for name, each in rates.items())
    bench.say(f"concurrency 16: {shown}: {_short(ratio)}")
