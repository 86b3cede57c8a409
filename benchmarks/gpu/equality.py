"""Stage equality: captured decoding against the eager reference, by family and precision."""

import copy
from typing import Any

import torch

from benchmarks.gpu import machines, protocols, shapes
from benchmarks.gpu.context import Context
from benchmarks.gpu.names import MODELS, OPUS
from benchmarks.gpu.requests import Request, Target, Together, batch
from model.captured.settings import CaptureSettings
from model.transformer import EncoderDecoder

_SPECIAL = 3  # tokens below it are no ordinary ones
STEPS = 4  # of one launch


class Differs(AssertionError):
    """Captured decoding gave other tokens than the reference in float32."""


def run(context: Context) -> None:
    """Every family as a toy and OPUS-MT in its own size: float32 exactly, half precisions told.

    Raises:
        Differs: after everything was recorded.
    """
    wrong, kept = [], []
    for model, is_tiny in [*((each, True) for each in MODELS), (OPUS, False)]:
        if (context.is_tiny and not is_tiny) or not context.has_time(3):
            continue
        described = shapes.config(model, is_tiny=is_tiny)
        network = shapes.network(described, torch.device("cpu"), torch.float32)
        requests = some_requests(described.vocabulary, *context.pick((24, 24), (8, 12)))
        expected = _eager(network, requests)
        found = _captured(context, copy.deepcopy(network).to(context.device), requests)
        name = "toy" if is_tiny else "real size"
        _record(context, model, f"{name}, captured and eager, float32", found, expected)
        kept.append((model, name, network, requests, expected))
        if found != expected:
            wrong.append(f"{model} ({name})")
    for each in kept:
        if context.has_time(6 if context.is_gpu else 1):
            _halves(context, *each)
    if wrong:
        raise Differs(f"captured and eager differ in float32: {', '.join(wrong)}")


def _halves(
    context: Context,
    model: str,
    name: str,
    network: EncoderDecoder,
    requests: list[Request],
    exact: list[Target],
) -> None:
    """Record how far both machines agree in each half precision, and each with float32."""
    for dtype in (torch.float16, torch.bfloat16):
        half = copy.deepcopy(network).to(device=context.device, dtype=dtype)
        eager, ours = _eager(half, requests), _captured(context, half, requests)
        told = f"{name}, captured and eager, {str(dtype).removeprefix('torch.')}"
        near = {"captured": equal_share(ours, exact), "eager": equal_share(eager, exact)}
        _record(context, model, told, ours, eager, equal_to_float32=near)


def _record(
    context: Context,
    model: str,
    case: str,
    found: list[Target],
    expected: list[Target],
    **details: Any,
) -> None:
    context.records.add(
        "tokens equal",
        equal_share(found, expected),
        "of rows",
        model=model,
        rows=len(found),
        case=case,
        tokens_equal_until_first_difference=common_share(found, expected),
        **details,
    )


def some_requests(vocabulary: int, rows: int, longest: int) -> list[Request]:
    """Return requests of mixed lengths, some of which end early."""
    lengths = protocols.spread(3, 40, rows, seed=5)
    news = protocols.spread(longest // 2, longest, rows, seed=6)
    return batch(protocols.sources(lengths, vocabulary, _SPECIAL), news)


def equal_share(found: list[Target], expected: list[Target]) -> float:
    """Return the share of rows that are equal throughout."""
    pairs = zip(found, expected, strict=True)
    return sum(one == other for one, other in pairs) / len(found)


def common_share(found: list[Target], expected: list[Target]) -> float:
    """Return the share of tokens that come before the first difference of their rows."""
    common = total = 0
    for one, other in zip(found, expected, strict=True):
        differences = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        common += next(differences, min(len(one), len(other)))
        total += max(len(one), len(other))
    return common / total


def _eager(network: EncoderDecoder, requests: list[Request]) -> list[Target]:
    runner = machines.eager(network, len(requests), _longest(requests))
    return Together(runner, requests).finish(1)


def _captured(context: Context, network: EncoderDecoder, requests: list[Request]) -> list[Target]:
    one_bucket = CaptureSettings(bucket_min=len(requests))
    runner = machines.captured(context, network, len(requests), _longest(requests), one_bucket)
    return Together(runner, requests).finish(STEPS)


def _longest(requests: list[Request]) -> int:
    return max(request.options.max_new_tokens for request in requests)
