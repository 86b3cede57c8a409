"""Stages check-*: each operation of the captured step against its plain twin, in float32.

One operation to a process: a kernel that reads where it must not takes its process with it.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.gpu import machines, states
from benchmarks.gpu.context import Context
from benchmarks.gpu.records import Skipped
from benchmarks.gpu.states import Sizes
from model.captured import plain
from model.captured.operations import Likeliest, NormKind, Operations

_ALLOWED = {torch.float32: 3e-6, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}
_VOCABULARY, _END = 1003, 7
Errors = Iterator[tuple[str, float, float]]  # case, relative error, the most that is allowed


class Differs(AssertionError):
    """An operation computes something else than its plain twin; says which case."""


def run(context: Context, part: str) -> None:
    """Check the operation of this name.

    Raises:
        Differs: after every case was recorded.
        Skipped: there is no kernel to check.
    """
    operations = machines.operations(context)
    if context.is_gpu and part in machines.plain_ones(operations):
        raise Skipped(f"{part} runs in its plain form: Triton is missing, or cannot run here")
    size = states.sizes(context.pick(256, 48))
    wrong, worst = [], dict[str, float]()  # by precision, or whatever else begins a case
    for case, error, allowed in CHECKS[part](operations, size, context.device):
        kind = case.partition(",")[0]
        before = worst.get(kind, 0.0)
        worst[kind] = before if error <= before else error  # NaN is the worst
        if not error <= allowed:  # NaN is not
            wrong.append(case)
            context.records.add("error", error, case=f"{part}, {case}", allowed=allowed)
    for kind, error in worst.items():
        context.records.add("worst error", error, case=f"{part}, {kind}")
    if wrong:
        raise Differs(f"{part} differs from its plain twin: {'; '.join(wrong)}")


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest value; NaN where either has one."""
    difference = (found.float() - expected.float()).abs().max()
    return float(difference / expected.float().abs().max().clamp(min=1e-20))


def _exactly(name: str, are_equal: bool) -> tuple[str, float, float]:
    return name, 0.0 if are_equal else 1.0, 0.0


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two are equal, where NaN is equal to NaN."""
    return bool(torch.isclose(one, other, 0, 0, equal_nan=True).all())


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _embed(operations: Operations, size: Sizes, device: torch.device) -> Errors:
    row_slot = states.row_slots(size, device)
    held = states.slots(size, row_slot, _VOCABULARY, _END)
    width = size.heads * size.head_dim
    for dtype, allowed in _ALLOWED.items():
        table = torch.randn(_VOCABULARY, width, device=device).to(dtype)
        positions = torch.randn(size.capacity + 2, width, device=device).to(dtype)
        for name, rest in {
            "no positions": (None, 0, None),
            "positions": (positions, 2, None),
            "positions, padding": (positions, 2, int(held.token[row_slot[2].long()])),
        }.items():
            found = operations.embed(row_slot, held, table, 1.5, *rest)
            expected = plain.embed(row_slot, held, table, 1.5, *rest)
            yield f"{_named(dtype)}, {name}", relative_error(found, expected), allowed


def _add_norm(operations: Operations, size: Sizes, device: torch.device) -> Errors:
    rows = len(size.positions) + 1
    for dtype, allowed in _ALLOWED.items():
        widths = (size.heads * size.head_dim, *([1024] if dtype == torch.float16 else []))
        for width in widths:
            residual = torch.randn(rows, width, device=device) * 3
            update = torch.randn(rows, width, device=device).to(dtype)
            weight, bias = (torch.randn(width, device=device).to(dtype) for _ in range(2))
            norms: list[tuple[NormKind, Tensor | None]] = [("layer", bias), ("rms", None)]
            for added in (update, None):
                for kind, shift in norms:
                    for is_pre in (True, False):
                        rest = (residual, added, weight, shift, 1e-5, kind, is_pre)
                        found = operations.add_norm(*rest, dtype)
                        expected = plain.add_norm(*rest, torch.float32)
                        stream, normed = map(relative_error, found, expected)
                        case = f"{_named(dtype)}, {width}, {kind}, {'pre' if is_pre else 'post'}"
                        case += ", nothing added" if added is None else ""
                        yield f"{case}, stream", stream, _ALLOWED[torch.float32]
                        yield f"{case}, norm", normed, allowed


def _append_attend(operations: Operations, size: Sizes, device: torch.device) -> Errors:
    row_slot = states.row_slots(size, device)
    held = states.slots(size, row_slot, _VOCABULARY, _END)
    inner = size.heads * size.head_dim
    by_distance = torch.randn(size.heads, size.capacity, device=device)
    for dtype, allowed in _ALLOWED.items():
        qkv = torch.randn(len(row_slot), 3 * inner, device=device).to(dtype)
        for bias in (None, by_distance):
            keys, values = (
                states.poisoned_cache(size, row_slot, held, dtype, seed) for seed in (5, 6)
            )
            wide = (keys.float(), values.float())
            rest = (row_slot, held.position, held.is_active, held.ancestors, bias, 0.125)
            found = operations.append_attend(qkv, keys, values, *rest)
            expected = plain.append_attend(qkv.float(), wide[0], wide[1], *rest)
            case = f"{_named(dtype)}, {'no bias' if bias is None else 'bias'}"
            yield case, relative_error(found, expected), allowed
            are_equal = _same(keys.float(), wide[0]) and _same(values.float(), wide[1])
            yield _exactly(f"{case}, cells", are_equal)


def _cross_attend(operations: Operations, size: Sizes, device: torch.device) -> Errors:
    row_slot = states.row_slots(size, device)
    held = states.slots(size, row_slot, _VOCABULARY, _END)
    sources, capacity = len(size.positions), size.capacity
    lengths = [0, 1, 15, 16, 17, capacity - 1, capacity, 3, 0][: sources + 1]
    source_length = states.integers(lengths, device)
    source_of_slot = torch.randint(0, sources, (size.slots + 1,), dtype=torch.int32)
    source_of_slot[row_slot[:-1].long().cpu()] = torch.arange(sources, dtype=torch.int32)
    source_of_slot = source_of_slot.to(device)
    beyond = torch.arange(capacity) >= torch.tensor(lengths)[:, None]
    for dtype, allowed in _ALLOWED.items():
        shape = (sources + 1, size.heads, capacity, size.head_dim)
        caches = [torch.randn(shape).to(dtype) for _ in range(2)]
        for cache in caches:
            cache[beyond[:, None].expand(-1, size.heads, -1)] = float("nan")
        keys, values = (cache.to(device) for cache in caches)
        query = torch.randn(len(row_slot), shape[1] * shape[3], device=device).to(dtype)
        rest = (row_slot, source_of_slot, source_length, held.is_active, 0.125)
        found = operations.cross_attend(query, keys, values, *rest)
        expected = plain.cross_attend(query.float(), keys.float(), values.float(), *rest)
        yield _named(dtype), relative_error(found, expected), allowed


def _logits(size: Sizes, device: torch.device) -> Tensor:
    """Return logits whose rows have ties, a NaN, an infinity, and the end token on top."""
    logits = torch.randn(len(size.positions) + 1, _VOCABULARY + 21)
    logits[:, _VOCABULARY:] = 100.0  # padding, which must not be picked
    logits[0, [800, 30, 500]] = 50.0
    logits[2, 11] = float("nan")
    logits[3, 12] = float("inf")
    logits[4:, _END] = 60.0
    return logits.to(device)


def _best(likeliest: Likeliest) -> tuple[Tensor, Tensor]:
    """Return the highest value of each row, and the lowest token that has it."""
    best = likeliest.values.amax(1, keepdim=True)
    last = torch.iinfo(torch.int32).max
    return best[:, 0], likeliest.tokens.where(likeliest.values == best, last).amin(1)


def _pick(operations: Operations, size: Sizes, device: torch.device) -> Errors:
    row_slot = states.row_slots(size, device)
    held = states.slots(size, row_slot, _VOCABULARY, _END)
    logits = _logits(size, device)
    bias = torch.randn(_VOCABULARY, device=device)
    bias[[30, 60, 61]] = float("-inf")
    for name, shift in (("no bias", None), ("bias", bias)):
        rest = (_VOCABULARY, shift, row_slot, held, _END)
        found = _best(operations.pick(logits.clone(), *rest))
        expected = _best(plain.pick(logits.clone(), *rest))
        yield _exactly(f"{name}, values", _same(found[0], expected[0]))
        counts = expected[0].isfinite()  # the others' tokens mean nothing
        yield _exactly(f"{name}, tokens", torch.equal(found[1][counts], expected[1][counts]))


def _advance(operations: Operations, size: Sizes, device: torch.device) -> Errors:
    row_slot = states.row_slots(size, device)
    held = states.slots(size, row_slot, _VOCABULARY, _END)
    likeliest = plain.pick(_logits(size, device), _VOCABULARY, None, row_slot, held, _END)
    box = states.outbox(3, len(row_slot) + 2, device)
    ours, theirs = states.moved(held, device), states.moved(held, device)
    our_box, their_box = states.moved(box, device), states.moved(box, device)
    for step in range(2):
        operations.advance(likeliest, row_slot, ours, our_box, _END)
        plain.advance(likeliest, row_slot, theirs, their_box, _END)
        yield _exactly(f"slots after step {step}", states.are_equal(ours, theirs))
        yield _exactly(f"outbox after step {step}", states.are_equal(our_box, their_box))


CHECKS: dict[str, Callable[[Operations, Sizes, torch.device], Errors]] = {
    "embed": _embed,
    "add_norm": _add_norm,
    "append_attend": _append_attend,
    "cross_attend": _cross_attend,
    "pick": _pick,
    "advance": _advance,
}
