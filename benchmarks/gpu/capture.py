"""Stage capture: what captures cost, and which bits stay the same however rows are arranged."""

import random
import time
from collections.abc import Sequence

import torch

from benchmarks.gpu import machines, protocols, shapes
from benchmarks.gpu.context import Context
from benchmarks.gpu.decoders import Decoder, Load
from benchmarks.gpu.equality import STEPS, Differs, equal_share
from benchmarks.gpu.names import BART, OPUS
from benchmarks.gpu.requests import Request, Target, Together, batch
from benchmarks.gpu.timing import synchronise
from model.captured.settings import CaptureSettings
from model.runner import Runner

_MODELS = (OPUS, BART)


def run(context: Context) -> None:
    """Compare replayed with eager, permuted rows, company with solitude, and bucket with bucket.

    Raises:
        Differs: what must be the same bits is not; after everything was recorded.
    """
    wrong = []
    for model in _MODELS:
        if not context.has_time(6):
            break
        if not _replayed(context, model):
            wrong.append(f"{model}: replayed and eager")
        if not _arranged(context, model):
            wrong.append(f"{model}: rows alone, together and permuted in one bucket")
    if wrong:
        raise Differs(f"bits differ: {'; '.join(wrong)}")


def _replayed(context: Context, model: str) -> bool:
    """Whether a replayed step leaves the same bits as the same step whose kernels are launched."""
    rows = context.pick(64, 4)
    decoder = Decoder(context, model, (rows,), Load((31, 17, 40), 12))
    began, before = time.perf_counter(), _held(context)
    decoder.capture(rows)
    held = _held(context) - before
    seconds = time.perf_counter() - began
    context.records.add("capture of a step", seconds, "s", model=model, rows=rows, bytes=held)
    is_equal = decoder.replays_as_it_runs(rows, steps=8)
    context.records.add("equal bits", is_equal, model=model, rows=rows, case="replayed and eager")
    return is_equal


def _arranged(context: Context, model: str) -> bool:
    """Decode the same requests in several arrangements; returns whether one bucket keeps bits."""
    rows, longest = context.pick(64, 6), context.pick(32, 6)
    described = context.config(model)
    network = shapes.network(described, context.device, shapes.precision(described))
    lengths = protocols.spread(8, 40, rows, seed=8)
    requests = batch(protocols.sources(lengths, described.vocabulary), [longest] * rows)
    requests[1::3] = [request.sampled(seed) for seed, request in enumerate(requests[1::3])]

    began, before = time.perf_counter(), _held(context)
    runner = machines.captured(context, network, rows, longest)
    seconds = time.perf_counter() - began
    held = _held(context) - before
    context.records.add("all captures", seconds, "s", model=model, rows=rows, bytes=held)
    _without_syncs(context, model, runner, requests)
    together = Together(runner, requests).finish(STEPS)

    one_bucket = CaptureSettings(bucket_min=rows, encoder_tokens=1)  # each source alone, too
    alike = machines.captured(context, network, rows, longest, one_bucket)
    expected = Together(alike, requests).finish(STEPS)
    drawn = random.Random(3).sample(range(rows), rows)
    moved = Together(alike)
    moved.join(requests, drawn)
    permuted = moved.finish(STEPS)
    some = range(0, rows, max(rows // 8, 1))
    alone = [Together(alike, [requests[at]]).finish(STEPS)[0] for at in some]
    joined = _joining(alike, requests)
    same = {
        "permuted rows": (permuted, expected),
        "alone and together, one bucket": (alone, [expected[at] for at in some]),
        "joining and leaving, one bucket": (joined, expected),
    }
    for name, pair in same.items():
        context.records.add("equal bits", pair[0] == pair[1], model=model, rows=rows, case=name)
    across = [Together(runner, [request]).finish(STEPS)[0] for request in requests]
    share = equal_share(across, together)
    case = "alone and together, across buckets"
    context.records.add("tokens equal", share, "of rows", model=model, rows=rows, case=case)
    return all(one == other for one, other in same.values())


def _joining(runner: Runner, requests: Sequence[Request]) -> list[Target]:
    """Return the targets where requests join one by one, in any row, while others run."""
    chance, waiting = random.Random(4), [*range(len(requests))]
    together, number_of = Together(runner), dict[int, int]()  # by row
    found: dict[int, Target] = {}
    free = [*range(len(requests))]
    while len(found) < len(requests):
        if waiting and (not together.is_running or chance.random() < 0.7):
            row = free.pop(chance.randrange(len(free)))
            number_of[row] = waiting.pop()
            together.join([requests[number_of[row]]], [row])
        _, ended = together.step(chance.choice((1, 2, STEPS)))
        for row in ended:
            found[number_of.pop(row)] = tuple(together.targets[row])
        free += ended
    return [found[number] for number in range(len(requests))]


def _without_syncs(
    context: Context, model: str, runner: Runner, requests: Sequence[Request]
) -> None:
    """Record whether a steady decode waits for the device only where it means to."""
    if not context.is_gpu:
        return
    greedy = [request for request in requests if not request.options.samples]
    decode = Together(runner, greedy)
    decode.step(STEPS)
    reason = ""
    torch.cuda.set_sync_debug_mode("error")
    try:
        decode.step(STEPS)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    context.records.add("no hidden wait", not reason, model=model, reason=reason)
    decode.stop()


def _held(context: Context) -> int:
    synchronise(context.device)
    return torch.cuda.memory_reserved(context.device) if context.is_gpu else 0
