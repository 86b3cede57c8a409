"""Single promises: latent hits, streaming's price, short texts beside a long one, the start."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import sentencepiece

from benchmarks import servers
from benchmarks.bench import REST_S, Bench, run_module
from benchmarks.figures import in_turns, percentile, poisson_arrivals, spread, summary
from benchmarks.load import Job, Outcome, send
from benchmarks.served import bodies, capacity, described
from benchmarks.servers import ROOT, Server
from benchmarks.texts import of_tokens

IMPORTS = "import torch, fastapi, uvicorn"


def source_length(checkpoint: Path) -> Callable[[str], int]:
    """Return a function that counts a text's source tokens, language token and end included."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "source.spm"))

    @cache
    def length(text: str) -> int:
        return 2 + len(pieces.encode(text))

    return length


def latents(bench: Bench, until: float) -> None:
    """Stream each of several long texts twice: the second time its latent is there."""
    length = source_length(bench.base)
    section = bench.results.sections.setdefault("latents", {})
    with servers.stele(bench.base) as server:
        server.wait()
        for tokens, count in ((200, 6 if bench.is_quick else 16), (30, 12)):
            texts = [of_tokens(bench.lines, tokens, seed, length) for seed in range(count + 1)]
            twice = [text for text in texts for _ in range(2)]
            job = Job(
                port=server.port,
                path="/translate/stream",
                bodies=bodies(twice, max_new_tokens=8),
                requests=len(twice),
            )
            outcome = _all_well(send(job))
            misses, hits = outcome.first_s[2::2], outcome.first_s[3::2]  # the first pair warms up
            ratio = summary([hit / miss for miss, hit in zip(misses, hits, strict=True)])
            if tokens == 200:
                bench.results.ratios["ttft"] = ratio
            section[f"{tokens} source tokens"] = {
                "miss_s": misses,
                "hit_s": hits,
                "ratio": ratio.as_json(),
            }
            bench.say(
                f"TTFT at {tokens} tokens: miss {1000 * statistics.median(misses):.1f} ms, "
                f"hit {1000 * statistics.median(hits):.1f} ms"
            )
        bench.remember("stele serve, base, int8", server.loaded, server.memory())


def _all_well(outcome: Outcome) -> Outcome:
    if outcome.failed:
        raise RuntimeError(f"requests failed: {outcome.statuses}")
    return outcome


def streams(bench: Bench, until: float) -> None:
    """64 clients that stream against 64 that wait for whole answers; targets of equal length."""
    texts = bench.mixed[:128]
    fields = {"min_new_tokens": 32, "max_new_tokens": 32}
    outcomes: dict[str, list[Outcome]] = {}
    with servers.stele(bench.base, latent_cache_bytes=0) as server:
        server.wait()

        def subject(name: str, path: str) -> Callable[[], float]:
            job = Job(port=server.port, path=path, bodies=bodies(texts, **fields), clients=64)

            def measure() -> float:
                outcome = _all_well(send(replace(job, requests=64 * rounds)))
                outcomes.setdefault(name, []).append(outcome)
                return outcome.per_s

            return measure

        subjects = {
            "whole": subject("whole", "/translate"),
            "streaming": subject("streaming", "/translate/stream"),
        }
        rounds = 1
        rate = subjects["whole"]()  # warms up, too
        rounds = max(1, min(6, round(rate * bench.seconds(6) / 64)))
        found = in_turns(subjects, turns=bench.turns, until=until, rest_s=REST_S)
    lost = [1 - s / w for s, w in zip(found["streaming"], found["whole"], strict=True)]
    ratio = bench.results.ratios["streams"] = summary(lost)
    bench.results.sections["streams"] = {
        "requests_per_s": found,
        "lost": ratio.as_json(),
        "last": {name: described(each[-1]) for name, each in outcomes.items()},
    }
    bench.say(f"streaming costs {ratio.median:.1%} of throughput")


def long_text(bench: Bench, until: float) -> None:
    """Short texts arriving at a quarter of the capacity, alone and beside maximum-length ones."""
    length = source_length(bench.bundled)
    longest = [of_tokens(bench.lines, 500, seed, length) for seed in range(8)]
    short = [line for line in bench.lines if length(line) <= 12]
    window_s = bench.seconds(4)
    with servers.stele(bench.bundled, latent_cache_bytes=0) as server:
        server.wait()
        rate = capacity(server, bench) / 4
        background = Job(
            port=server.port,
            bodies=bodies(longest, min_new_tokens=511, max_new_tokens=511),
            requests=1,
            timeout_s=60,
        )
        seeds = iter(range(1000))
        found: dict[str, list[Outcome]] = {"alone": [], "beside": []}
        long_s: list[float] = []

        def window(name: str) -> float:
            arrivals = poisson_arrivals(rate, window_s, seed=next(seeds))
            job = Job(port=server.port, bodies=bodies(short), arrivals=arrivals)
            if name == "alone":
                outcome = _all_well(send(job))
            else:
                outcome = _beside(server, background, job, long_s)
            found[name].append(outcome)
            return percentile(outcome.latencies, 0.99)

        p99 = in_turns(
            {name: partial(window, name) for name in found},
            turns=bench.turns,
            until=until,
            rest_s=REST_S,
        )
    ratio = summary([b / a for a, b in zip(p99["alone"], p99["beside"], strict=True)])
    bench.results.ratios["short_p99"] = ratio
    bench.results.sections["long text"] = {
        "rate_per_s": rate,
        "p99_s": p99,
        "long_text_s": long_s,
        "ratio": ratio.as_json(),
        "all": {n: spread([x for o in each for x in o.latencies]) for n, each in found.items()},
    }
    bench.say(
        f"p99 of short texts at {rate:.0f}/s: alone {1000 * statistics.median(p99['alone']):.0f} "
        f"ms, beside a long one {1000 * statistics.median(p99['beside']):.0f} ms"
    )


def _beside(server: Server, background: Job, job: Job, long_s: list[float]) -> Outcome:
    """Do `job` while maximum-length texts are translated one after the other."""
    is_over = threading.Event()

    def keep_busy() -> None:
        while not is_over.is_set():
            long_s.extend(send(background).latencies)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    time.sleep(0.3)
    try:
        return _all_well(send(job))
    finally:
        is_over.set()
        busy.join()


def start(bench: Bench, until: float) -> None:
    """From `stele serve` to ready, and the imports that nobody can avoid, in turns."""

    def ready() -> float:
        command = [sys.executable, "-m", "server", "serve", "--port", "{port}"]
        with Server([*command, "--log-level", "warning"]) as server:
            return server.wait().ready_s

    def imports() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True, cwd=ROOT)
        return time.perf_counter() - began

    subjects = {"imports": imports, "ready": ready}
    for subject in subjects.values():
        subject()  # warm the disk's cache
    found = in_turns(subjects, turns=bench.turns, until=until)
    pairs = zip(found["ready"], found["imports"], strict=True)
    bench.results.ratios["start"] = ratio = summary([r / (1.5 * i + 1) for r, i in pairs])
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    bench.results.notes["start"] = f"{middle['ready']:.1f} s; imports {middle['imports']:.1f} s"
    bench.results.sections["start"] = {"seconds": found, "ratio": ratio.as_json()}
    bench.say(f"ready after {middle['ready']:.2f} s, imports {middle['imports']:.2f} s")


def nllb(bench: Bench, until: float) -> None:
    """NLLB-600M's dimensions, Stele alone, by precision: `python -m benchmarks.size`."""
    table = run_module("size")
    bench.results.sections["nllb"] = {"table": table}
    bench.say("\n" + table)
