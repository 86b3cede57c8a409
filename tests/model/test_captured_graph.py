"""What is recorded is replayed as a device would: fixed addresses, baked numbers, blind to data."""

import random
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model import DecodingOptions
from model.captured import plain
from model.captured.graph import TapeGraph
from model.captured.memory import Memory
from model.captured.operations import Operations
from model.captured.steps import VARIANTS, Variant
from model.captured.weights import gather
from model.kv_cache import round_up
from tests.model.captured_runners import CapturedRunner, begin, random_runs
from tests.model.driver import run_together
from tests.model.networks import BART_LIKE, T5_LIKE, TENSOR2TENSOR, tiny_network

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def test_a_tape_runs_again_on_what_its_tensors_hold_now() -> None:
    given, kept = torch.ones(3), torch.zeros(3)

    def step() -> None:
        kept.add_((given * 2).view(3, 1).squeeze(1))

    graph = TapeGraph(step)
    given.fill_(5)
    graph.replay()
    assert kept.tolist() == [12, 12, 12]


def test_a_tape_exposes_a_number_that_changes_and_a_tensor_that_is_rebound() -> None:
    state: dict[str, Any] = {"number": 1, "tensor": torch.ones(1)}
    out = torch.zeros(2)

    def step() -> None:
        out[0].copy_(torch.full((), float(state["number"])))
        out[1].copy_(state["tensor"][0])

    graph = TapeGraph(step)
    state |= {"number": 2, "tensor": torch.full((1,), 2.0)}
    graph.replay()

    assert out.tolist() == [1, 1]


FORBIDDEN = (  # synchronise with the host, have shapes that depend on data, or copy from it
    "aten.item",
    "aten._local_scalar_dense",
    "aten.nonzero",
    "aten.masked_select",
    "aten.unique",
    "aten._unique",
    "aten.equal",
    "aten.is_nonzero",
    "aten.multinomial",
    "aten.lift_fresh",
    "aten.repeat_interleave.Tensor",
    "aten.rand",
    "aten.normal",
    "aten.exponential_",
    "aten.bernoulli",
)


class Lint(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what cannot be captured."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert not str(func).startswith(FORBIDDEN), func
        if str(func).startswith(("aten.index.", "aten.index_put", "aten._index_put")):
            assert not any(index.dtype == torch.bool for index in args[1] if index is not None)
            assert not any(args[3:]), "adds up"
        return func(*args, **kwargs)


def captured(**kind: Any) -> CapturedRunner:
    subject = CapturedRunner(tiny_network(**kind), 9)
    options = DecodingOptions(max_new_tokens=20, min_new_tokens=20, temperature=0.5)
    begin(subject, [(5, 6, 0), (7, 8, 9, 0)], options)
    return subject


@every_variant
@pytest.mark.parametrize("kind", [{}, T5_LIKE, TENSOR2TENSOR], ids=["marian", "t5", "m2m100"])
@torch.inference_mode()
def test_a_step_holds_nothing_that_cannot_be_captured(
    variant: Variant, kind: dict[str, Any]
) -> None:
    subject = captured(**kind)
    steps = subject.machine._steps
    with Lint():  # type: ignore[no-untyped-call]
        steps.run(8, variant)
        subject.memory.take(8)
    with FakeTensorMode(allow_non_fake_inputs=True):  # raises where a shape depends on data
        steps.run(8, variant)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:  # sees inside of operators
        steps.run(8, variant)
    seen = {event.key for event in profiled.key_averages()}
    assert seen.isdisjoint({"aten::item", "aten::_local_scalar_dense", "aten::nonzero"})
    assert "aten::linear" in seen


@pytest.mark.parametrize(
    "offence",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.tensor([1.0]) + x[0],
        lambda x: x.softmax(0).multinomial(1),
        lambda x: torch.equal(x, x),
    ],
)
@torch.inference_mode()
def test_the_lint_sees_what_it_is_for(offence: Callable[[Tensor], object]) -> None:
    given = torch.ones(4)
    with pytest.raises(AssertionError), Lint():  # type: ignore[no-untyped-call]
        offence(given)


def tensors(memory: Memory) -> Iterator[Tensor]:
    for value in vars(memory).values():
        if isinstance(value, Tensor):
            yield value
        else:
            yield from (getattr(value, field.name) for field in fields(value))


def test_nothing_moves_while_requests_come_and_go() -> None:
    subject = CapturedRunner(tiny_network(), 14, most=4, bucket_min=4)
    before = [tensor.data_ptr() for tensor in tensors(subject.memory)]
    run_together(subject, random_runs(random.Random(1), 10), random.Random(1))
    assert [tensor.data_ptr() for tensor in tensors(subject.memory)] == before
    assert len(before) == 30


def test_keys_and_values_take_what_the_formula_says() -> None:
    network = tiny_network().half()
    weights = gather(network, 100)
    memory = Memory(weights, 6, 8, 50, 100, 3, 4, torch.device("cpu"))
    config = network.config
    a_position = 2 * 2 * config.decoder_layers * config.width  # bytes, of all layers
    for pools, length in (
        ((memory.keys, memory.values), 100),
        ((memory.source_keys, memory.source_values), 50),
    ):
        assert sum(pool.nbytes for pool in pools) == 7 * round_up(length, 16) * a_position


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what a device would launch: each operation once, and operators that are no views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self._is_inside = 0, False

    def wrapped(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def once(*args: Any) -> Any:
            self.count, self._is_inside = self.count + 1, True
            result = operation(*args)
            self._is_inside = False
            return result

        return once

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tree_leaves(args) if isinstance(x, Tensor)}
        is_fresh = any(x.untyped_storage().data_ptr() not in given for x in tree_leaves(result))
        self.count += is_fresh and not self._is_inside
        return result


@pytest.mark.parametrize(
    ("kind", "layers", "expected"),
    [
        ({"activation": "silu"}, 6, 76),  # OPUS-MT
        ({**BART_LIKE}, 12, 149),  # BART: its embeddings have a norm
        ({**TENSOR2TENSOR}, 12, 137),  # NLLB: its first norm comes before the first layer
        ({**T5_LIKE, "is_gated": False, "activation": "relu"}, 6, 71),  # T5: likewise
        ({**T5_LIKE}, 6, 83),
    ],
    ids=["opus-mt", "bart", "nllb", "t5", "t5-1.1"],
)
@torch.inference_mode()
def test_a_step_launches_as_few_kernels_as_planned(
    kind: dict[str, Any], layers: int, expected: int
) -> None:
    network = tiny_network(**kind, decoder_layers=layers)
    subject = CapturedRunner(network, 2)
    launches = Launches()
    wrapped = {
        f.name: launches.wrapped(getattr(plain.OPERATIONS, f.name)) for f in fields(Operations)
    }
    steps = subject.machine._steps
    steps._operations = steps._decoder._operations = Operations(**wrapped)

    with launches:
        steps.run(8, "greedy")

    assert launches.count == expected
