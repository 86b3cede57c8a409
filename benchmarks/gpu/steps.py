"""Stage steps: one decode step of each model by its rows, replayed, against its limit."""

import statistics
from dataclasses import dataclass

from benchmarks.gpu import limits
from benchmarks.gpu.context import Context
from benchmarks.gpu.decoders import Decoder, Load
from benchmarks.gpu.names import BART, NLLB, OPUS, T5
from benchmarks.gpu.timing import spin
from model.captured.steps import Variant


@dataclass(frozen=True, slots=True)
class Case:
    """A model, how many rows it decodes together, and what they hold."""

    model: str
    rows: tuple[int, ...]
    load: Load


CASES = (  # those that have goals come first in each
    Case(BART, (64, 128, 32, 8, 1), Load((350,), 64)),
    Case(OPUS, (64, 1, 8, 32, 128, 256), Load((30,), 16)),
    Case(NLLB, (64, 128, 1), Load((40,), 20)),
    Case(T5, (64, 1, 8), Load((200,), 50)),
    Case(OPUS, (256,), Load((128,), 64)),
)
_TINY = tuple(Case(model, (4, 1), Load((7, 4), 6)) for model in (BART, OPUS, NLLB, T5))
_ROOM_S = 4.0  # that a model with its captures takes at least


def run(context: Context) -> None:
    """Time them: replayed, in a larger bucket, by other variants, and not captured."""
    spin(context.device)
    smallest = context.pick(8, 2)
    for case in context.pick(CASES, _TINY):
        if not context.has_time(_ROOM_S):
            return
        buckets = sorted({max(rows, smallest) for rows in case.rows})
        decoder = Decoder(context, case.model, buckets, case.load)
        for rows in case.rows:
            bucket = max(rows, smallest)
            decoder.capture(bucket)
            _record(context, case, rows, decoder, bucket)
        if case is context.pick(CASES, _TINY)[1]:
            _variants(context, case, decoder, smallest)


def _record(
    context: Context,
    case: Case,
    rows: int,
    decoder: Decoder,
    bucket: int,
    variant: Variant = "greedy",
    told: str = "",
) -> None:
    found = [decoder.step_s(rows, bucket, variant) for _ in range(context.blocks)]
    seconds = statistics.median(found)
    limit = limits.step_s(context.config(case.model), rows, case.load.positions(rows))
    name = told or ("" if case.load.target < 64 or case.model == BART else "long")
    context.records.add(
        "decode step",
        seconds * 1e6,
        "us",
        model=case.model,
        rows=rows,
        case=name,
        tokens_per_s=rows / seconds,
        share=limit / seconds,
        limit_us=limit * 1e6,
        blocks_us=[round(each * 1e6, 1) for each in found],
        source=max(case.load.lengths),
        target=case.load.target,
        bucket=bucket,
    )


def _variants(context: Context, case: Case, decoder: Decoder, smallest: int) -> None:
    """What few rows cost in a large bucket, what choosing costs, and launches without a graph."""
    rows = case.rows[0]
    _record(context, case, smallest, decoder, rows, told=f"in a bucket of {rows}")
    variants: tuple[Variant, ...] = ("draws", "beams", "mixed")
    for variant in variants:
        if context.has_time(_ROOM_S):
            decoder.capture(rows, variant)
            _record(context, case, rows, decoder, rows, variant, variant)
    seconds = statistics.median(decoder.uncaptured_s(rows, rows) for _ in range(context.blocks))
    context.records.add(
        "decode step", seconds * 1e6, "us", model=case.model, rows=rows, case="not captured"
    )
