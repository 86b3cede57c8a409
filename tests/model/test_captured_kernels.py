"""The kernels' values are proven in Triton's interpreter, or on a GPU; their code is compiled.

The interpreter has to be asked for before Triton is imported, so it runs in a process of its own.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.captured import plain
from model.captured.operations import NormKind, Operations, Outbox, Slots
from tests.model.captured import check_append_attend, check_cross_attend, check_independence
from tests.model.captured_choice import check_add_norm, check_advance, check_embed, check_pick
from tests.model.test_captured_operations import CPU, GPU, NEEDS_TRITON, NO_GPU

pytestmark = NEEDS_TRITON
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
CHECKS: list[tuple[Any, ...]] = [
    *((check_append_attend, dtype, 16, biased) for dtype in FLOATS for biased in (False, True)),
    (check_append_attend, torch.float16, 64, True),
    *((check_cross_attend, dtype, 16) for dtype in FLOATS),
    (check_cross_attend, torch.float16, 128),
    (check_independence, torch.float16),
    *(
        (check_add_norm, dtype, kind, is_pre)
        for dtype in FLOATS
        for kind in ("layer", "rms")
        for is_pre in (True, False)
    ),
    *((check_embed, dtype) for dtype in FLOATS),
    (check_pick, 50, 50),
    (check_pick, 2501, 2560),  # three parts, the last one short
    (check_advance, 1),
    (check_advance, 3),
]
EACH = pytest.mark.parametrize(
    "check", CHECKS, ids=lambda check: "-".join([check[0].__name__, *map(str, check[1:])])
)
Run = Callable[..., Any]


def version_of(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


def in_short_blocks() -> Operations:
    """Return Triton's operations, which read longer rows in several turns."""
    from model.captured import fused

    return replace(
        fused.OPERATIONS,
        append_attend=partial(fused.append_attend, block=16),
        cross_attend=partial(fused.cross_attend, block=16),
    )


def interpreted(check: Run, *arguments: Any) -> None:
    """Run a check where Triton interprets kernels instead of compiling them."""
    os.environ["TRITON_INTERPRET"] = "1"
    check(in_short_blocks(), CPU, *arguments)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Run]:
    if version_of("triton") < (3, 7) and version_of("numpy") >= (2, 4):
        pytest.skip("the interpreter of Triton 3.6 needs NumPy below 2.4 (triton#9171)")
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        yield lambda *arguments: process.submit(interpreted, *arguments).result()


@EACH
def test_kernels_compute_what_their_contracts_say(interpreter: Run, check: tuple[Any, ...]) -> None:
    interpreter(*check)


@pytest.mark.gpu
@NO_GPU
@EACH
def test_compiled_kernels_compute_what_their_contracts_say(check: tuple[Any, ...]) -> None:
    run, *arguments = check
    with torch.inference_mode():
        run(in_short_blocks(), GPU, *arguments)


def in_graph(operation: Run) -> Run:
    """Return an operation that is captured on an idle engine, and replayed on the real state."""

    def replayed(*arguments: Any) -> Any:
        state: list[Tensor] = []
        for each in arguments:
            parts = [getattr(each, f.name) for f in fields(each)] if _is_state(each) else [each]
            state += [part for part in parts if isinstance(part, Tensor)]
        held = [tensor.clone() for tensor in state]
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            operation(*arguments)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            result: Any = operation(*arguments)
        for tensor, before in zip(state, held, strict=True):
            tensor.copy_(before)
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            graph.replay()
        torch.cuda.synchronize()
        return result

    return replayed


def _is_state(value: object) -> bool:
    return isinstance(value, Slots | Outbox)


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("implementation", ["plain", "triton"])
@EACH
def test_operations_can_be_captured(check: tuple[Any, ...], implementation: str) -> None:
    run, *arguments = check
    operations = plain.OPERATIONS if implementation == "plain" else in_short_blocks()
    names = [field.name for field in fields(Operations)]
    graphs: dict[str, Any] = {name: in_graph(getattr(operations, name)) for name in names}
    with torch.inference_mode():
        run(Operations(**graphs), GPU, *arguments)


TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    int: "i32",
    float: "fp32",
}


class Code:
    """What a launch of a kernel becomes on an H100, compiled here."""

    def __init__(self, kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names, self.warps = kernel.arg_names, options["num_warps"]
        self.constants = {name: options[name] for name in names[len(arguments) :]}
        kinds = [TYPES[v.dtype if isinstance(v, Tensor) else type(v)] for v in arguments]
        source = ASTSource(
            kernel,
            dict(zip(names, kinds, strict=False)) | dict.fromkeys(self.constants, "constexpr"),
            {(names.index(name),): value for name, value in self.constants.items()},
            {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(kinds) if "*" in kind},
        )
        target = GPUTarget("cuda", 90, 32)
        wanted = {name: value for name, value in options.items() if name not in names}
        found = triton.compile(source, target=target, options=wanted)
        self.ptx, self.ttir, self._cubin = (found.asm[n] for n in ("ptx", "ttir", "cubin"))

    def usage(self, folder: Path) -> dict[str, int]:
        """Return what a thread needs: REG, STACK, LOCAL and more."""
        path = folder / "kernel.cubin"
        path.write_bytes(self._cubin)
        command = [str(TOOLS / "cuobjdump"), "--dump-resource-usage", str(path)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {name: int(count) for name, count in re.findall(r"([A-Z]+):(\d+)", told)}

    def wide_bytes(self) -> int:
        """Return how many bytes one turn of a program loads 16 at a time."""
        load = r"ld\.global[\w.:]*\.v4\.[bf]32|cp\.async\.cg\.shared\.global"
        loads: list[str] = re.findall(load, self.ptx)
        threads: int = 32 * self.warps
        return len(loads) * 16 * threads


SPEC = find_spec("triton")
TOOLS = Path(str(SPEC and SPEC.origin)).parent / "backends" / "nvidia" / "bin"
SHAPES = {
    "bart": (torch.float16, 16, 64, 50_264, False),
    "t5": (torch.bfloat16, 8, 64, 32_128, True),
    "nllb": (torch.float32, 16, 64, 256_206, False),
    "wide-heads": (torch.float16, 8, 128, 58_101, True, 3),
}


def launch_all(
    dtype: torch.dtype, heads: int, head_dim: int, vocabulary: int, is_t5: bool, stages: int = 1
) -> dict[str, int]:
    """Launch every kernel on tensors without memory; returns what each must load at once."""
    from model.captured import fused

    def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    rows, width, count = 64, heads * head_dim, 65
    each = empty(count, dtype=torch.int32)
    table = empty(count, 256, dtype=torch.int32)
    slots = Slots(each, each, each, each, each, table, table, table)
    columns = -(-vocabulary // 64) * 64
    weight, pool = empty(width), empty(count, heads, 512, head_dim)
    stream, logits = (empty(rows, n, dtype=torch.float32) for n in (width, columns))
    shift = empty(columns, dtype=torch.float32)
    by_distance = empty(heads, 512, dtype=torch.float32) if is_t5 else None
    update, row = empty(rows, width), empty(rows, dtype=torch.int32)
    places = None if is_t5 else empty(1026, width)
    kind: NormKind = "rms" if is_t5 else "layer"
    fused.embed(row, slots, empty(columns, width), 1.0, places, 2, 1)
    fused.add_norm(stream, update, weight, None if is_t5 else weight, 1e-6, kind, is_t5, dtype)
    fused.append_attend(
        empty(rows, 3 * width), pool, pool, row, each, each, table, by_distance, 1.0
    )
    fused.cross_attend(update, pool, pool, row, each, each, each, 1.0, stages=stages)
    picked = fused.pick(logits, vocabulary, shift, row, slots, 2)
    box = Outbox(empty(1, dtype=torch.int32), empty(4, 2, 256, dtype=torch.int32))
    fused.advance(picked, row, slots, box, 2)
    size = dtype.itemsize
    return {
        "embed_kernel": (1 if is_t5 else 2) * width * size,
        "add_norm_kernel": (4 + 2 * size) * width,
        "append_attend_kernel": 2 * 4096,
        "cross_attend_kernel": 2 * 8192,
        "pick_kernel": 2 * 4 * max(1 << (vocabulary // 32).bit_length(), 1024),
        "advance_kernel": 0,
    }


def offsets(code: Code, rank: int) -> list[int]:
    """Return of how many bits the offsets are by which tensors of addresses are reached."""
    shape = r"(?:\d+x)" + f"{{{rank}}}"
    pattern = rf"tt\.addptr .*tensor<{shape}!tt\.ptr<.*, tensor<{shape}i(\d+)>"
    return [int(bits) for bits in re.findall(pattern, code.ttir)]


@pytest.mark.skipif(
    not all((TOOLS / tool).exists() for tool in ("ptxas", "cuobjdump")),
    reason="this Triton has no ptxas or no cuobjdump",
)
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_kernels_need_few_registers_and_load_16_bytes_at_once(
    shapes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from model.captured import kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    codes: dict[str, Code] = {}

    class Launcher:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(kernels, name)

        def __getitem__(self, grid: object) -> Callable[..., None]:
            return self.launch

        def launch(self, *arguments: Any, **options: Any) -> None:
            codes[self.name] = Code(self.kernel, arguments, options)

    for name in [name for name in vars(kernels) if name.endswith("_kernel")]:
        monkeypatch.setattr(kernels, name, Launcher(name))
    wide = launch_all(*shapes)
    assert codes.keys() == wide.keys()
    for name, code in codes.items():
        usage = code.usage(tmp_path)
        assert (usage["STACK"], usage["LOCAL"]) == (0, 0), name
        assert usage["REG"] <= 128, (name, usage)
        assert code.wide_bytes() >= wide[name], name
        if "attend" in name:  # cells may lie beyond 2^31
            assert set(offsets(code, 2)) == {64}, name
    assert offsets(codes["append_attend_kernel"], 1).count(64) == 2  # key and value written
    cross = codes["cross_attend_kernel"]
    assert ("cp.async" in cross.ptx) == (cross.constants["STAGES"] > 1)
    # Warps of a program run apart; what one writes, all have read before.
    read, _, written = codes["advance_kernel"].ttir.partition("tt.store")
    assert "tt.load" not in written
    assert "barrier" in read[read.rindex("tt.load") :]
