"""Stage batches: whole batches from sources to last tokens, the encoder and the host included."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.gpu import limits, machines, protocols, shapes
from benchmarks.gpu.context import Context
from benchmarks.gpu.names import BART, NLLB, OPUS
from benchmarks.gpu.predictions import FORCED_CASE, STOPPED_CASE
from benchmarks.gpu.requests import Together, batch
from benchmarks.gpu.timing import spin, synchronise
from model.runner import Runner

_WARM_UPS, _RUNS = 5, 20
_STEPS = 4  # of one launch
TRANSLATION = "translation"
_TRANSLATED = {OPUS: 30, NLLB: 40}  # tokens of a source; targets are about as long


@dataclass(frozen=True, slots=True)
class Batch:
    """Sources of these lengths, continued by so many tokens each, submitted at once."""

    sources: Sequence[int]
    targets: Sequence[int]
    case: str
    beams: int = 1

    @property
    def rows(self) -> int:
        """How many targets there are."""
        return len(self.targets)


def published(rows: int) -> list[Batch]:
    """Return both protocols of the published summaries; the one that has goals first."""
    sources = protocols.spread(*protocols.BART_SOURCES, rows, seed=3)
    stopped = Batch(sources, protocols.stopped(rows), STOPPED_CASE)
    return [stopped, Batch(sources, [protocols.FORCED] * rows, FORCED_CASE)]


def translated(source: int, rows: int, beams: int = 1) -> Batch:
    """Return sentences about as long as their sources, which is about `source` tokens."""
    sources = protocols.spread(source // 2, source * 3 // 2, rows, seed=9)
    case = TRANSLATION + (f", {beams} beams" if beams > 1 else "")
    return Batch(sources, [length + 2 for length in sources], case, beams)


def _tiny() -> list[Batch]:
    sources = protocols.spread(4, 9, 4, seed=3)
    return [
        Batch(sources, protocols.spread(3, 7, 4, seed=7), STOPPED_CASE),
        Batch(sources, [7] * 4, FORCED_CASE),
    ]


def run(context: Context) -> None:
    """Time the published protocol by rows, then translations, greedy and by beams."""
    spin(context.device)
    summaries = [batch for rows in (64, 128, 32) for batch in published(rows)]
    _model(context, BART, summaries, _tiny(), torch.bfloat16)  # as those who published
    for model, source in _TRANSLATED.items():
        wanted = [translated(source, 64), translated(source, 16, beams=4)]
        _model(context, model, wanted, [translated(6, 4), translated(6, 2, beams=4)])


def _model(
    context: Context,
    model: str,
    real: list[Batch],
    tiny: list[Batch],
    dtype: torch.dtype | None = None,
) -> None:
    if not context.has_time(10 if context.is_gpu else 1):
        return
    batches = context.pick(real, tiny)
    described = context.config(model)
    dtype = dtype or shapes.precision(described)
    network = shapes.network(described, context.device, dtype)
    rows = max(each.rows * each.beams for each in batches)
    longest = max(max(each.targets) for each in batches)
    runner = machines.captured(context, network, rows, longest)
    for each in batches:
        if context.has_time(6 if context.is_gpu else 0.5):
            measure(context, model, runner, each, str(dtype))
    if model == OPUS and context.has_time(6 if context.is_gpu else 0.5):
        reference = machines.eager(network, rows, longest)
        measure(
            context, model, reference, replace(batches[0], case=f"{TRANSLATION}, eager"), str(dtype)
        )


def measure(context: Context, model: str, runner: Runner, wanted: Batch, precision: str) -> None:
    """Record the median time to the last row, after warm-ups."""
    warm_ups, runs = context.pick((_WARM_UPS, _RUNS), (1, 2))
    found = [_seconds(context, runner, wanted) for _ in range(warm_ups + runs)][warm_ups:]
    seconds, tokens = statistics.median(found), sum(wanted.targets)
    limit = limits.batch_s(context.config(model), wanted.sources, wanted.targets)
    context.records.add(
        "whole batch",
        seconds * 1e3,
        "ms",
        model=model,
        rows=wanted.rows,
        case=wanted.case,
        tokens_per_s=tokens / seconds,
        share=limit / seconds if wanted.beams == 1 else None,
        limit_ms=limit * 1e3,
        fastest_ms=min(found) * 1e3,
        slowest_ms=max(found) * 1e3,
        tokens=tokens,
        precision=precision.removeprefix("torch."),
        runs=runs,
        batches_per_s=1 / seconds,
    )


def _seconds(context: Context, runner: Runner, wanted: Batch) -> float:
    """Return the time from the sources to the last token on the host."""
    sources = protocols.sources(wanted.sources, runner.config.vocabulary)
    requests = batch(sources, wanted.targets, wanted.beams)
    synchronise(context.device)
    began = time.perf_counter()
    together = Together(runner, requests)
    targets = together.finish(_STEPS)
    seconds = time.perf_counter() - began
    if [len(target) for target in targets] != [*wanted.targets]:
        raise AssertionError("rows ended elsewhere than at their limits")
    return seconds
