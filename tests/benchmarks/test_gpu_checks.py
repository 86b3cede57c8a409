"""The checks of single operations: each finds what is wrong with a kernel that is."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import kernel_checks, machines
from benchmarks.gpu.context import Context
from benchmarks.gpu.kernel_checks import Differs
from benchmarks.gpu.records import Records
from benchmarks.gpu.stages import OPERATIONS
from model.captured import plain


@pytest.fixture
def context(tmp_path: Path) -> Context:
    records = Records(tmp_path / "out.jsonl", "check")
    return Context(torch.device("cpu"), True, {}, records, time.monotonic() + 60)


def embed(row_slot: Any, slots: Any, table: Any, scale: Any, positions: Any, *rest: Any) -> Any:
    return plain.embed(row_slot, slots, table, scale, positions, rest[0], None)


def add_norm(residual: Any, update: Any, weight: Any, bias: Any, *rest: Any) -> Any:
    return plain.add_norm(residual, update, weight, None, *rest)


def append_attend(qkv: Any, keys: Any, values: Any, *rest: Any) -> Any:
    before = values.clone()
    mixed = plain.append_attend(qkv, keys, values, *rest)
    values.copy_(before)
    return mixed


def last_unread(row_slot: Any, position: Any, *rest: Any) -> Any:
    """Attend to one position too few, where there are several."""
    return (row_slot, (position - (position > 14).int()).clamp(min=0), *rest)


def forgetful(qkv: Any, keys: Any, values: Any, *rest: Any) -> Any:
    return plain.append_attend(qkv, keys, values, *last_unread(*rest))


def cross_attend(
    query: Any, keys: Any, values: Any, rows: Any, which: Any, n: Any, *rest: Any
) -> Any:
    return plain.cross_attend(query, keys, values, rows, which, n + (n == 16).int(), *rest)


def pick(logits: Any, vocabulary: int, *rest: Any) -> Any:
    found = plain.pick(logits, vocabulary, *rest)
    ties = logits[:, :vocabulary] == found.values
    last = (ties * torch.arange(vocabulary)).amax(1, keepdim=True)
    return found._replace(tokens=last.int())


def unpadded(logits: Any, vocabulary: int, bias: Any, *rest: Any) -> Any:
    return plain.pick(logits, logits.shape[1] if bias is None else vocabulary, bias, *rest)


def advance(likeliest: Any, row_slot: Any, slots: Any, outbox: Any, end: int) -> None:
    history = slots.history.clone()
    plain.advance(likeliest, row_slot, slots, outbox, end)
    slots.history.copy_(history)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_is_right_passes_and_its_worst_error_is_told(
    operation: str, context: Context
) -> None:
    kernel_checks.run(context, operation)
    lines = [json.loads(line) for line in context.records.path.read_text().splitlines()]
    assert lines
    assert {line["what"] for line in lines} == {"worst error"}


@pytest.mark.parametrize(
    ("operation", "broken"),
    [
        ("embed", embed),
        ("add_norm", add_norm),
        ("append_attend", append_attend),
        ("append_attend", forgetful),
        ("cross_attend", cross_attend),
        ("pick", pick),
        ("pick", unpadded),
        ("advance", advance),
    ],
)
def test_an_operation_that_is_wrong_fails(
    operation: str, broken: Callable[..., Any], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(plain.OPERATIONS, **{operation: broken})
    monkeypatch.setattr(machines, "operations", lambda context: wrong)
    with pytest.raises(Differs, match=f"{operation} differs from its plain twin"):
        kernel_checks.run(context, operation)


def test_the_rivals_of_our_attention_compute_the_same(context: Context) -> None:
    from benchmarks.gpu import attention

    inputs = attention._inputs(context, attention._summaries(3))
    found: dict[str, Any] = {
        name: attend(*inputs.caches[0])
        for name, attend in attention._rivals(context, inputs).items()
    }
    expected = found.pop("plain").float()
    assert found.keys() == {"bmm", "math"}
    for name, mixed in found.items():
        assert torch.allclose(mixed.float().view_as(expected), expected, atol=2e-3), name


def test_the_private_operator_would_read_each_slot_where_it_lies(context: Context) -> None:
    from benchmarks.gpu import attention

    inputs = attention._inputs(context, attention._even(3, 2, 17))
    keys, _ = inputs.caches[0]
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.ops.aten,
            "_flash_attention_forward",
            lambda *given, **named: seen.append((given, named)),
        )
        attention._flash(inputs)(*inputs.caches[0])
    ((_, packed, _, ends, begins, *_), named) = seen[0]
    assert ends.tolist() == [0, 1, 2, 3]
    for row, length in enumerate(named["seqused_k"].tolist()):
        for head in range(2):
            positions = packed[int(begins[row]) : int(begins[row]) + length, head]
            assert torch.equal(positions, keys[row, head, :length])
