"""The kernels' values are proven in Triton's interpreter, or on a GPU; their code is compiled.

The interpreter has to be asked for before Triton is imported, so it runs in a process of its own.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.captured.operations import Operations, Outbox, Slots
from tests.model import captured
from tests.model.test_captured_operations import CPU, GPU, NEEDS_TRITON, ON_GPU, everything

pytestmark = NEEDS_TRITON
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CHECKS: list[tuple[Any, ...]] = [
    *(("append_attend", dtype, 16, is_biased) for dtype in DTYPES for is_biased in (False, True)),
    ("append_attend", torch.float16, 64, True),
    *(("cross_attend", dtype, 16) for dtype in DTYPES),
    ("cross_attend", torch.float16, 128),
    *(
        ("add_norm", dtype, kind, is_pre)
        for dtype in DTYPES
        for kind in ("layer", "rms")
        for is_pre in (True, False)
    ),
    *(("embed", dtype) for dtype in DTYPES),
    ("pick", 50, 50),
    ("pick", 2501, 2560),  # three parts, the last one short
    ("advance", 1),
    ("advance", 3),
]
Check = Callable[..., None]


def version_of(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


def interpreted(name: str, *arguments: Any) -> None:
    """Run a check where Triton interprets kernels; several positions follow in each lane."""
    os.environ["TRITON_INTERPRET"] = "1"
    kernels_check(CPU, name, *arguments)


def kernels_check(device: torch.device, name: str, *arguments: Any) -> None:
    from model.captured.fused import OPERATIONS

    short = replace(
        OPERATIONS,
        append_attend=partial(OPERATIONS.append_attend, block=16),  # type: ignore[call-arg]
        cross_attend=partial(OPERATIONS.cross_attend, block=16),  # type: ignore[call-arg]
    )
    check: Check = getattr(captured, f"check_{name}")
    check(short, device, *arguments)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Check]:
    if version_of("triton") < (3, 7) and version_of("numpy") >= (2, 4):
        pytest.skip("the interpreter of Triton 3.6 needs NumPy below 2.4 (triton#9171)")
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        yield lambda *arguments: process.submit(interpreted, *arguments).result()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: "-".join(map(str, check)))
def test_kernels_compute_what_their_contracts_say(
    interpreter: Check, check: tuple[Any, ...]
) -> None:
    interpreter(*check)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: "-".join(map(str, check)))
def test_compiled_kernels_compute_what_their_contracts_say(check: tuple[Any, ...]) -> None:
    with torch.inference_mode():
        kernels_check(GPU, *check)
