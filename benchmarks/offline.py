"""Engines called directly: whole translations by batch and beams, in turns with their peers."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import THREADS, Bench, best_threads, translate_in_turns
from benchmarks.cases import Case, base_cases, bundled_cases, fewer
from benchmarks.direct import Ids, Work
from benchmarks.figures import equal_share, paired
from benchmarks.worker import Worker, WorkerFailed


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
    started |= _ctranslate2(bench, label, "int8", settings)
    section = bench.results.sections.setdefault(f"offline, {label}, int8", {})
    with workers(started, bench, f"{label}, int8") as ready:
        peers = {name: ready[name] for name in settings if name in ready}
        if not peers:
            raise WorkerFailed("CTranslate2 is missing: pip install 'stele[bench]'")
        best_threads(peers, fewer(cases[0], 1).work)  # warm up
        for number, case in enumerate(cases):
            share = (until - time.monotonic()) / (len(cases) - number)
            stop = time.monotonic() + share
            threads, calibration = _threads(peers, case, section)
            ready["stele"].translate(case.work)  # warm up
            subjects = {"ctranslate2": peers[threads], "stele": ready["stele"]}
            figures, targets = compare(subjects, case, bench, stop, settings[threads][1])
            bench.targets[f"{label}, {case.name}"] = targets
            figures |= {"ctranslate2_threads": threads, "calibration_s": calibration}
            section[case.name] = figures
            if case.key:
                bench.results.ratios[case.key] = paired(
                    figures["seconds"]["ctranslate2"], figures["seconds"]["stele"]
                )
            bench.say(f"{label}, int8, {case.name}: {_line(figures)} (CTranslate2: {threads})")


def _threads(
    peers: Mapping[str, Worker], case: Case, section: Mapping[str, Any]
) -> tuple[str, dict[str, float]]:
    """Return the threads that suit a case best, and the seconds of each that was tried."""
    if case.threads_as is None:
        return best_threads(peers, case.work)
    chosen: str = section[case.threads_as]["ctranslate2_threads"]
    return chosen, {chosen: peers[chosen].seconds(case.work)}  # warms up, too


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
    started |= _ctranslate2(bench, label, "float32", settings)
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


def _ctranslate2(
    bench: Bench, label: str, precision: str, settings: Mapping[str, tuple[int, int]]
) -> dict[str, Worker]:
    """Begin to load one of CTranslate2 for each way to use threads."""
    model = bench.converted(label)
    return {
        name: Worker("ctranslate2", model, precision=precision, intra=intra, inter=inter)
        for name, (intra, inter) in settings.items()
    }


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
    few = [fewer(case, 2 if case.work.rows == 1 else 16) for case in (cases[0], cases[2])]
    measure_float32(bench, "base", bench.base, few, until)


def offline_bundled(bench: Bench, until: float) -> None:
    """The bundled model."""
    began, cases = time.monotonic(), bundled_cases(bench)
    middle = began + 0.7 * (until - began)
    measure_int8(bench, "bundled", bench.bundled, cases, middle)
    few = [fewer(cases[0], 8), fewer(cases[2], 64), fewer(cases[5], 8)]
    measure_float32(bench, "bundled", bench.bundled, few, until)
