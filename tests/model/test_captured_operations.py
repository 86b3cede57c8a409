from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

from model.captured.chosen import chosen, problem
from model.captured.operations import Likeliest, NormKind, Operations, Outbox
from model.captured.plain import OPERATIONS
from model.layers import RMSNorm
from tests.model import captured, captured_choice
from tests.model.captured import DUMMY, ROWS, WILD, ints, noise, running, slots_at

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
NEEDS_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"]
)


@pytest.fixture(
    params=[CPU, pytest.param(GPU, marks=[pytest.mark.gpu, NO_GPU])], ids=["cpu", "gpu"]
)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    with torch.inference_mode():
        yield request.param


@DTYPES
@pytest.mark.parametrize("head_dim", [16, 24, 64])
@pytest.mark.parametrize("is_biased", [False, True], ids=["unbiased", "biased"])
def test_a_position_is_appended_and_attends_along_its_ancestors(
    device: torch.device, dtype: torch.dtype, head_dim: int, is_biased: bool
) -> None:
    captured.check_append_attend(OPERATIONS, device, dtype, head_dim, is_biased)


@DTYPES
@pytest.mark.parametrize("head_dim", [16, 24, 64])
def test_sources_are_read_up_to_their_lengths(
    device: torch.device, dtype: torch.dtype, head_dim: int
) -> None:
    captured.check_cross_attend(OPERATIONS, device, dtype, head_dim)


@DTYPES
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("is_pre", [True, False], ids=["pre", "post"])
def test_a_branch_is_added_and_normed(
    device: torch.device, dtype: torch.dtype, kind: NormKind, is_pre: bool
) -> None:
    captured_choice.check_add_norm(OPERATIONS, device, dtype, kind, is_pre)


@DTYPES
def test_tokens_are_embedded_at_their_positions(device: torch.device, dtype: torch.dtype) -> None:
    captured_choice.check_embed(OPERATIONS, device, dtype)


@pytest.mark.parametrize(("vocabulary", "columns"), [(50, 50), (50, 64), (2501, 2560)])
def test_the_likeliest_token_that_counts_is_picked(
    device: torch.device, vocabulary: int, columns: int
) -> None:
    captured_choice.check_pick(OPERATIONS, device, vocabulary, columns)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_row_takes_its_token_and_ends_where_it_must(device: torch.device, parts: int) -> None:
    captured_choice.check_advance(OPERATIONS, device, parts)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_are_those_of_the_network(kind: NormKind) -> None:
    weight, bias, hidden = noise(64, seed=1), noise(64, seed=2), noise(5, 64)
    network: nn.Module = RMSNorm(64, 1e-6) if kind == "rms" else nn.LayerNorm(64, 1e-6)
    own = {"weight": weight} | ({} if kind == "rms" else {"bias": bias})
    network.load_state_dict(own)
    with torch.inference_mode():
        expected = network(hidden)
        _, found = OPERATIONS.add_norm(
            hidden, None, weight, own.get("bias"), 1e-6, kind, True, torch.float32
        )
    torch.testing.assert_close(found, expected)


def everything(operations: Operations, device: torch.device) -> list[Tensor]:
    """Run every operation once, with all that it may be given."""
    slots, rows = running(device), ints(ROWS, device)
    keys = torch.zeros(len(slots.token), 2, slots.ancestors.shape[1], 16, device=device)
    sources, weight = ints([0] * len(keys), device), noise(32).to(device)
    logits, bias = noise(len(ROWS), 64).to(device), noise(50).to(device)
    outbox = Outbox(ints([0], device), ints(torch.zeros(2, 2, len(ROWS)), device))
    table, steps = noise(50, 32).to(device), noise(2, keys.shape[2]).to(device)
    stream = operations.embed(rows, slots, table, 2.0, table, 1, 1)
    stream, normed = operations.add_norm(
        stream, stream, weight, weight, 1e-5, "layer", False, torch.float32
    )
    mixed = operations.append_attend(
        normed.repeat(1, 3),
        keys,
        keys.clone(),
        rows,
        slots.position,
        slots.is_active,
        slots.ancestors,
        steps,
        1.0,
    )
    read = operations.cross_attend(
        mixed, keys, keys, rows, sources, sources + 3, slots.is_active, 1.0
    )
    likeliest = operations.pick(logits, 50, bias, rows, slots, 2)
    operations.advance(likeliest, rows, slots, outbox, 2)
    return [stream, normed, mixed, read, *likeliest, slots.token, outbox.cells]


def test_nothing_synchronises_with_the_host() -> None:
    with torch.inference_mode(), profile() as recorded:
        everything(OPERATIONS, CPU)
    names = {event.key for event in recorded.key_averages()}
    assert "aten::softmax" in names
    hidden = {"item", "_local_scalar_dense", "nonzero", "equal", "unique", "masked_select"}
    assert not {f"aten::{name}" for name in hidden} & names


def test_padding_rows_alone_change_nothing() -> None:
    slots, rows = running(CPU), ints([DUMMY] * 4, CPU)
    before = {name: getattr(slots, name).clone() for name in type(slots).__dataclass_fields__}
    outbox = Outbox(ints([0], CPU), ints([[[WILD] * 4] * 2], CPU))
    drawn = Likeliest(torch.zeros(4, 1), ints([[3]] * 4, CPU))
    OPERATIONS.advance(drawn, rows, slots, outbox, 2)
    assert all(torch.equal(getattr(slots, name), held) for name, held in before.items())
    assert outbox.cells.tolist() == [[[0] * 4] * 2]
    assert outbox.entry.tolist() == [0]  # a single entry follows itself


def test_a_draw_replaces_the_tokens_of_all_parts() -> None:
    slots, rows = slots_at({4: 0}, CPU), ints([4], CPU)
    outbox = Outbox(ints([0], CPU), ints([[[0]] * 2], CPU))
    picked = Likeliest(torch.tensor([[1.0, 3.0]]), ints([[8, 9]], CPU))
    OPERATIONS.advance(picked._replace(tokens=ints([[21, 21]], CPU)), rows, slots, outbox, 2)
    assert outbox.cells.flatten().tolist() == [21, 5]


def test_a_cpu_runs_the_plain_operations() -> None:
    assert chosen(CPU) == OPERATIONS


@pytest.fixture
def triton_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.captured.chosen.problem", lambda device: None)


@NEEDS_TRITON
@pytest.mark.usefixtures("triton_works")
def test_another_device_runs_tritons_but_for_what_is_replaced() -> None:
    from model.captured.fused import OPERATIONS as FUSED

    assert chosen(GPU) == FUSED
    some = chosen(GPU, {"pick": "plain"})
    assert (some.pick, some.advance) == (OPERATIONS.pick, FUSED.advance)
    assert chosen(CPU, {"pick": "triton"}).pick == FUSED.pick


@NEEDS_TRITON
@pytest.mark.usefixtures("triton_works")
def test_heads_of_another_width_than_a_power_of_two_are_mixed_by_plain_operations() -> None:
    from model.captured.fused import OPERATIONS as FUSED

    found = chosen(GPU, head_dim=24)
    assert (found.append_attend, found.pick) == (OPERATIONS.append_attend, FUSED.pick)
    with pytest.raises(ValueError, match="heads of 24"):
        chosen(GPU, {"cross_attend": "triton"}, head_dim=24)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [({"sample": "plain"}, "no operation 'sample'"), ({"pick": "numpy"}, "pick cannot be 'numpy'")],
)
def test_what_does_not_exist_cannot_be_chosen(replaced: dict[str, str], message: str) -> None:
    choose: Callable[..., Operations] = chosen
    with pytest.raises(ValueError, match=message):
        choose(CPU, replaced)


def test_without_triton_a_device_runs_the_plain_operations_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("model.captured.chosen.find_spec", lambda name: None)
    assert chosen(GPU) == OPERATIONS
    assert caplog.messages == [
        "Triton is not installed: steps run PyTorch's operations, and slower"
    ]
    with pytest.raises(ValueError, match="Triton is not installed; choose plain for pick"):
        chosen(GPU, {"pick": "triton"})


@NEEDS_TRITON
def test_a_device_that_cannot_run_a_kernel_says_why_in_a_line() -> None:
    reason = str(problem(torch.device("xpu")))  # which this PyTorch was not built for
    assert reason.startswith("Triton cannot run a kernel: ")
    assert len(reason) > 30
    assert "\n" not in reason


@pytest.mark.gpu
@NO_GPU
@NEEDS_TRITON
def test_triton_runs_here() -> None:
    assert problem(GPU) is None
