"""NLLB-600M's dimensions: engines called directly, in turns, where there is memory for them."""

import time
from dataclasses import replace

from benchmarks.bench import LEAST, THREADS, Bench, run_module
from benchmarks.cases import SOURCE, TARGET, Case, random_sources
from benchmarks.direct import Work
from benchmarks.memory import available_mb
from benchmarks.offline import measure_float32, measure_int8

ENGLISH, END = 256_047, 2
INT8_MB, FLOAT32_MB = 8_000, 13_000  # measured: 5,400 and 10,300 while all of them load
SETTINGS = {name: THREADS[name] for name in ("intra 2", "inter 2")}  # the third never was the best


def cases() -> list[Case]:
    """Sources of 30 tokens, targets of 32, greedy."""
    sources = random_sources([SOURCE] * 8, seed=1, language=ENGLISH, end=END)
    return [
        Case(
            f"batch {rows}",
            Work(sources=sources[:count], rows=rows, longest=TARGET),
            turns=LEAST,
        )
        for rows, count in ((1, 2), (8, 8))
    ]


def offline_nllb(bench: Bench, until: float) -> None:
    """Stele and CTranslate2 in int8; one small case of float32 with Transformers.

    Raises:
        RuntimeError: there is too little memory; what was measured before is kept.
    """
    verify_memory("NLLB-600M's dimensions in int8", INT8_MB, available_mb())
    began = time.monotonic()
    run_module("nllb", str(bench.folder))
    made_s = time.monotonic() - began
    bench.results.sections["seconds"]["checkpoint of NLLB's dimensions"] = round(made_s, 1)
    until += made_s  # the first time only
    checkpoint, both = bench.folder / "nllb", cases()
    middle = time.monotonic() + 0.6 * (until - time.monotonic())
    measure_int8(bench, "nllb", checkpoint, both, middle, SETTINGS)
    verify_memory("NLLB-600M's dimensions in float32", FLOAT32_MB, available_mb())
    work = replace(both[0].work, sources=both[0].work.sources[:1], longest=8)
    small = replace(both[0], work=work)
    measure_float32(bench, "nllb", checkpoint, [small], until, SETTINGS)


def verify_memory(what: str, needed_mb: float, available: float) -> None:
    """Raise RuntimeError where there is less memory than needed."""
    if available < needed_mb:
        raise RuntimeError(
            f"{what}: {needed_mb / 1000:.0f} GB of memory are needed, "
            f"{available / 1000:.1f} GB are free"
        )
