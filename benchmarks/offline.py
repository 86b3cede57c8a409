"""Engines called directly: whole translations by batch and beams, in turns with their peers."""

import json
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sentencepiece

from benchmarks.bench import LEAST, THREADS, TURNS, Bench, best_threads, translate_in_turns
from benchmarks.direct import Ids, Work
from benchmarks.figures import equal_share, paired
from benchmarks.worker import Worker, WorkerFailed

SOURCE, TARGET = 30, 32  # tokens, where lengths are fixed


@dataclass(frozen=True, slots=True)
class Case:
    """A measurement.

    Attributes:
        key: of the goal that it decides, if it does.
        turns: at most, where fewer than usual suffice.
    """

    name: str
    work: Work
    key: str | None = None
    turns: int = TURNS


def base_cases() -> list[Case]:
    """Marian base: sources of 30 tokens, and of mixed lengths; targets of 32, for all end there."""
    fixed, mixed = random_sources([SOURCE] * 64, seed=1), random_sources(_lengths(96), seed=2)

    def case(rows: int, count: int, beams: int = 1) -> Case:
        name = f"batch {rows}" + (f", beam {beams}" if beams > 1 else "")
        work = Work(sources=fixed[:count], rows=rows, beams=beams, longest=TARGET)
        if beams == 1:
            return Case(name, work, f"base_{rows}")
        return Case(name, work, "base_beam_16") if rows == 16 else Case(name, work, turns=LEAST)

    def mix(rows: int, count: int) -> Case:
        work = Work(sources=mixed[:count], rows=rows, at_once=True, longest=TARGET)
        return Case(f"batch {rows}, mixed sources", work, turns=LEAST)

    return [
        case(1, 4),
        case(4, 8),
        case(16, 32),
        case(64, 64),
        case(1, 2, beams=4),
        case(4, 4, beams=4),
        case(16, 16, beams=4),
        case(64, 64, beams=4),
        mix(16, 32),
        mix(64, 96),
    ]


def random_sources(
    lengths: Sequence[int], seed: int, *, language: int = 8000, end: int = 0
) -> list[Ids]:
    """Return distinct sources of ordinary pieces: a language token, pieces, the end."""
    chance = random.Random(seed)
    return [[language, *(chance.randrange(300, 7900) for _ in range(n - 2)), end] for n in lengths]


def _lengths(count: int) -> list[int]:
    """Return source lengths as they are in running text: log-normal, 6 to 90, median 25."""
    chance = random.Random(3)
    return [min(90, max(6, round(chance.lognormvariate(3.2, 0.5)))) for _ in range(count)]


def bundled_cases(bench: Bench) -> list[Case]:
    """The bundled model: sentences of mixed lengths; each target ends where it ends."""
    ids: dict[str, int] = json.loads((bench.bundled / "vocab.json").read_text(encoding="utf-8"))
    sources = _tokenised(bench.bundled, bench.mixed, ids)
    cases = []
    sizes_of = {1: {1: 16, 4: 48, 16: 160, 64: 320}, 4: {1: 8, 4: 24, 16: 64, 64: 128}}
    for beams, sizes in sizes_of.items():
        for rows, count in sizes.items():
            name = f"batch {rows}" + (f", beam {beams}" if beams > 1 else "")
            work = Work(sources=sources[:count], rows=rows, at_once=True, beams=beams)
            turns = LEAST if rows * beams == 256 else TURNS
            cases.append(Case(name, work, turns=turns))
    return cases


def _tokenised(checkpoint: Path, texts: Sequence[str], ids: Mapping[str, int]) -> list[Ids]:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "source.spm"))
    return [
        [ids[">>de<<"], *(ids.get(p, ids["<unk>"]) for p in pieces.encode(t, out_type=str)), 0]
        for t in texts
    ]


@contextmanager
def workers(started: Mapping[str, Worker], bench: Bench, label: str) -> Iterator[dict[str, Worker]]:
    """Wait for workers that are loading; what a missing peer said is kept as the reason.

    Raises:
        WorkerFailed: Stele could not be loaded.
    """
    with ExitStack() as stack:
        for worker in started.values():
            stack.enter_context(worker)
        ready = {}
        for name, worker in started.items():
            try:
                ready[name] = worker.wait()
            except WorkerFailed as error:
                if name.startswith("stele"):
                    raise
                missing = bench.results.sections.setdefault("not measured", {})
                missing[f"{label}: {name}"] = str(error)
                bench.say(f"not measured: {name}: {error}")
        yield ready
        for name, worker in ready.items():
            bench.remember(f"{label}: {name}", worker.loaded, worker.memory())


def measure_int8(
    bench: Bench,
    label: str,
    checkpoint: Path,
    cases: list[Case],
    until: float,
    settings: Mapping[str, tuple[int, int]] = THREADS,
) -> None:
    """Stele and CTranslate2 in int8, CTranslate2 with the threads that suit each case best."""
    started = {"stele": Worker("stele", checkpoint, precision="int8", rows=_slots(cases))}
    for threads, (intra, inter) in settings.items():
        started[threads] = Worker(
            "ctranslate2", bench.converted(label), precision="int8", intra=intra, inter=inter
        )
    section = bench.results.sections.setdefault(f"offline, {label}, int8", {})
    with workers(started, bench, f"{label}, int8") as ready:
        stele = ready.pop("stele")
        if not ready:
            raise WorkerFailed("CTranslate2 is missing: pip install 'stele[bench]'")
        best_threads(ready, cases[0].work)  # warm up
        for number, case in enumerate(cases):
            share = (until - time.monotonic()) / (len(cases) - number)
            stop = time.monotonic() + share
            threads, calibration = best_threads(ready, case.work)
            stele.translate(case.work)  # warm up
            subjects = {"ctranslate2": ready[threads], "stele": stele}
            figures, targets = compare(subjects, case, bench, stop, settings[threads][1])
            bench.targets[f"{label}, {case.name}"] = targets
            figures |= {"ctranslate2_threads": threads, "calibration_s": calibration}
            section[case.name] = figures
            if case.key:
                bench.results.ratios[case.key] = paired(
                    figures["seconds"]["ctranslate2"], figures["seconds"]["stele"]
                )
            bench.say(f"{label}, int8, {case.name}: {_line(figures)} (CTranslate2: {threads})")


def measure_float32(
    bench: Bench,
    label: str,
    checkpoint: Path,
    cases: list[Case],
    until: float,
    settings: Mapping[str, tuple[int, int]] = THREADS,
) -> None:
    """Stele, CTranslate2 and Transformers in float32: fewer cases, since they are slower."""
    started = {
        "stele": Worker("stele", checkpoint, precision="float32", rows=_slots(cases)),
        "transformers": Worker("transformers", checkpoint),
    }
    for threads, (intra, inter) in settings.items():
        started[threads] = Worker(
            "ctranslate2", bench.converted(label), precision="float32", intra=intra, inter=inter
        )
    section = bench.results.sections.setdefault(f"offline, {label}, float32", {})
    with workers(started, bench, f"{label}, float32") as ready:
        for number, case in enumerate(cases):
            share = (until - time.monotonic()) / (len(cases) - number)
            stop = time.monotonic() + share
            subjects = {name: one for name, one in ready.items() if name not in settings}
            calibration, at_once = dict[str, float](), 1
            if peers := {name: ready[name] for name in settings if name in ready}:
                threads, calibration = best_threads(peers, case.work)
                subjects["ctranslate2"], at_once = peers[threads], settings[threads][1]
            figures, targets = compare(subjects, case, bench, stop, at_once)
            figures["calibration_s"] = calibration
            ours = targets["stele"]
            figures["int8_equal_to_float32"] = {
                name: equal_share(ours, [t[: case.work.longest] for t in found[: len(ours)]])
                for name, found in bench.targets.get(f"{label}, {case.name}", {}).items()
            }
            section[case.name] = figures
            bench.say(f"{label}, float32, {case.name}: {_line(figures)}")


def _slots(cases: Sequence[Case]) -> int:
    """Return the rows that Stele needs for the largest case."""
    return max(case.work.rows * case.work.beams for case in cases)


def compare(
    subjects: Mapping[str, Worker], case: Case, bench: Bench, until: float, inter: int
) -> tuple[dict[str, Any], dict[str, list[Ids]]]:
    """Measure in turns; returns figures and targets.

    Figures are seconds, speeds, paired ratios, and the share of outputs equal to ours.

    Args:
        inter: batches that CTranslate2 decodes at the same time.
    """
    turns = min(case.turns, bench.turns)
    seconds, targets = translate_in_turns(subjects, case.work, turns, until)
    count = len(case.work.sources)
    figures: dict[str, Any] = {
        "sentences": count,
        "rows": case.work.rows,
        "beams": case.work.beams,
        "seconds": seconds,
        "sentences_per_s": {n: count / statistics.median(s) for n, s in seconds.items()},
        "tokens_per_s": {
            n: sum(map(len, targets[n])) / statistics.median(s) for n, s in seconds.items()
        },
    }
    batches = {"ctranslate2": inter}
    figures["ms_per_step"] = {
        n: step_ms(statistics.median(s), targets[n], case.work, batches.get(n, 1))
        for n, s in seconds.items()
    }
    others = [name for name in subjects if name != "stele"]
    figures["ratio"] = {n: paired(seconds[n], seconds["stele"]).as_json() for n in others}
    figures["equal"] = {n: equal_share(targets["stele"], targets[n]) for n in others}
    figures["equal_lengths"] = {
        n: equal_share(*[[len(t) for t in targets[m]] for m in ("stele", n)]) for n in others
    }
    return figures, targets


def step_ms(seconds: float, targets: Sequence[Ids], work: Work, batches: int) -> float:
    """Return how long a sentence waits for its next token while as many as may are at work.

    Encoding is included. Where targets are of one length, this is the time over the steps.

    Args:
        targets: without their ends, which take a step too.
        batches: that `work.rows` sentences are cut into, to be decoded at the same time.
    """
    tokens = sum(min(len(target) + 1, work.longest) for target in targets)
    at_work = min(len(work.calls[0]), batches * -(-work.rows // batches))
    return 1000 * seconds * at_work / tokens


def _line(figures: Mapping[str, Any]) -> str:
    ratios = [
        f"x {name} {ratio['median']:.2f} ({ratio['low']:.2f} - {ratio['high']:.2f}), "
        f"equal {figures['equal'][name]:.0%}"
        for name, ratio in figures["ratio"].items()
    ]
    return f"{figures['sentences_per_s']['stele']:.1f}/s; {'; '.join(ratios)}"


def offline_base(bench: Bench, until: float) -> None:
    """Marian base."""
    began, cases = time.monotonic(), base_cases()
    middle = began + 0.8 * (until - began)
    measure_int8(bench, "base", bench.base, cases, middle)
    few = [_fewer(case, 2 if case.work.rows == 1 else 16) for case in (cases[0], cases[2])]
    measure_float32(bench, "base", bench.base, few, until)


def offline_bundled(bench: Bench, until: float) -> None:
    """The bundled model."""
    began, cases = time.monotonic(), bundled_cases(bench)
    middle = began + 0.7 * (until - began)
    measure_int8(bench, "bundled", bench.bundled, cases, middle)
    few = [_fewer(cases[0], 8), _fewer(cases[2], 64), _fewer(cases[5], 8)]
    measure_float32(bench, "bundled", bench.bundled, few, until)


def _fewer(case: Case, count: int) -> Case:
    """Return the case with its first sources, for engines that are slower."""
    return Case(case.name, replace(case.work, sources=case.work.sources[:count]), turns=LEAST)
