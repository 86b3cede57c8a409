"""Poisson arrivals over HTTP, beside CTranslate2 behind a dynamic batcher."""

import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks import servers
from benchmarks.bench import REST_S, THREADS, Bench
from benchmarks.figures import (
    highest,
    in_turns,
    percentile,
    poisson_arrivals,
    summary,
)
from benchmarks.load import Job, Outcome, send
from benchmarks.served import bodies, capacity, described, short
from benchmarks.servers import Server

BOUND_S = 0.25  # of p99, where goodput at equal p99 is asked for
RATES = (0.25, 0.5, 0.75)  # of the lower capacity, in open loops


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
    bench.say(f"goodput with p99 within {BOUND_S} s: {shown}: {short(summary(ratios))}")
