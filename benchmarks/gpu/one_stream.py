"""Stage stream: one stream alone, from its source to each token on the host."""

import statistics
import time
from itertools import pairwise

from benchmarks.gpu import limits, machines, protocols, shapes
from benchmarks.gpu.context import Context
from benchmarks.gpu.names import OPUS, T5
from benchmarks.gpu.requests import Together, batch
from benchmarks.gpu.timing import quantile, spin

_SOURCES = {T5: 200, OPUS: 30}
_WARM_UPS, _RUNS = 5, 20


def run(context: Context) -> None:
    """Time the first token and the gaps between the others, one step to a launch."""
    spin(context.device)
    for model, source in _SOURCES.items():
        warm_ups, runs, longest = context.pick((_WARM_UPS, _RUNS, 64), (1, 2, 6))
        length = context.pick(source, 9)
        described = context.config(model)
        network = shapes.network(described, context.device, shapes.precision(described))
        runner = machines.captured(context, network, 8, longest)
        first, gaps = [], []
        for number in range(warm_ups + runs):
            sources = protocols.sources([length], described.vocabulary, seed=number)
            moments = [time.perf_counter()]
            together = Together(runner, batch(sources, [longest]))
            while together.is_running:
                if together.step(1)[0]:
                    moments.append(time.perf_counter())
            if number >= warm_ups:
                steps = [after - before for before, after in pairwise(moments)]
                first.append(steps[0])
                gaps += steps[1:]
        _record(context, model, first, gaps, length, longest)


def _record(
    context: Context, model: str, first: list[float], gaps: list[float], source: int, longest: int
) -> None:
    add, gap = context.records.add, statistics.median(gaps)
    limit = limits.step_s(context.config(model), 1, source + longest // 2)
    add("first token", statistics.median(first) * 1e3, "ms", model=model, rows=1, source=source)
    add(
        "between tokens",
        gap * 1e3,
        "ms",
        model=model,
        rows=1,
        p99_ms=quantile(gaps, 0.99) * 1e3,
        tokens_per_s=1 / gap,
        share=limit / gap,
    )
