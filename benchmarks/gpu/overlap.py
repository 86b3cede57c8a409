"""Stage overlap: what the host costs, by steps in a launch and how late it reads them."""

import statistics
import time
from functools import partial

from benchmarks.gpu import machines, protocols, shapes
from benchmarks.gpu.context import Context
from benchmarks.gpu.decoders import Decoder, Load
from benchmarks.gpu.names import BART, OPUS
from benchmarks.gpu.requests import Together, batch
from benchmarks.gpu.timing import spin, synchronise
from model.captured.settings import CaptureSettings
from model.runner import Runner

_LOADS = {OPUS: Load((30,), 48), BART: Load((350,), 64)}  # at the middle of what is decoded
_TINY = Load((6,), 8)
_STEPS, _LATE = (1, 2, 4, 8), (1, 0, 2)


def run(context: Context) -> None:
    """Compare a step through a runner with the device's own, which is never faster."""
    spin(context.device)
    for model, real in _LOADS.items():
        rows, load = context.pick((64, real), (4, _TINY))
        described = context.config(model)
        network = shapes.network(described, context.device, shapes.precision(described))
        decoder = Decoder(context, model, (rows,), load)
        decoder.capture(rows)
        step_s = statistics.median(decoder.step_s(rows, rows) for _ in range(context.blocks))
        for late in context.pick(_LATE, (1, 0)):
            if not context.has_time(4 if context.is_gpu else 0.5):
                return
            settings = CaptureSettings(late=late, bucket_min=rows)  # one shape is all it needs
            runner = machines.captured(context, network, rows, 2 * load.target, settings)
            for steps in context.pick(_STEPS, (1, 4)):
                measure = partial(_per_token_s, context, runner, rows, load, steps)
                seconds = statistics.median(measure() for _ in range(context.blocks))
                context.records.add(
                    "step through the host",
                    seconds * 1e6,
                    "us",
                    model=model,
                    rows=rows,
                    case=f"{steps} in a launch, {late} late",
                    device_us=step_s * 1e6,
                    busy_share=step_s / seconds,
                )


def _per_token_s(context: Context, runner: Runner, rows: int, load: Load, steps: int) -> float:
    """Return the seconds of a step in launches of `steps`, while no row joins or leaves."""
    lengths = [load.source(row) for row in range(rows)]
    sources = protocols.sources(lengths, runner.config.vocabulary)
    together = Together(runner, batch(sources, [2 * load.target] * rows))
    together.step(steps)
    synchronise(context.device)
    began, tokens = time.perf_counter(), 0
    while tokens < rows * (2 * load.target - 2 * steps):
        tokens += together.step(steps)[0]
    seconds = time.perf_counter() - began
    together.stop()
    return seconds * rows / tokens
