"""Which implementation of each operation a device runs, and what replaces one that fails."""

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Any, Literal

import torch

from model.captured import plain
from model.captured.device import settled
from model.captured.operations import CannotCapture, Operations

Implementation = Literal["plain", "triton"]
_NAMES = [field.name for field in fields(Operations)]
_MIXING = ("append_attend", "cross_attend")  # by heads, whose width the kernels build on
_HEAD_DIMS = (16, 32, 64, 128)
logger = logging.getLogger(__name__)


def problem(device: torch.device) -> str | None:
    """Return in a line why Triton's kernels cannot run on `device`; None if they can, for one did.

    Triton may be there and yet find no C compiler, which some of its versions need for a launch.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cpu":
        return None  # its interpreter may run
    try:
        from model.captured.fused import OPERATIONS

        with settled(device):  # Triton launches on the current one
            row = torch.zeros(1, 16, device=device)
            OPERATIONS.add_norm(row, None, row[0], None, 1.0, "rms", True, torch.float32)
    except Exception as error:  # whatever compilers and drivers raise
        return f"Triton cannot run a kernel: {str(error).partition(chr(10))[0]}"
    return None


def chosen(
    device: torch.device,
    replaced: Mapping[str, Implementation] | None = None,
    *,
    head_dim: int = 64,
) -> Operations:
    """Return the operations for `device`: Triton's, but on a CPU and where it fails the plain ones.

    Args:
        replaced: by the name of an operation, which implementation of it is taken instead.
        head_dim: of the decoder; Triton's attention is for powers of two from 16 to 128 only, and
            others are left to the plain one.

    Raises:
        CannotCapture: for an operation or an implementation that does not exist or cannot be had.
    """
    replaced = replaced or {}
    _verify(replaced, head_dim)
    wanted: dict[str, Implementation] = dict.fromkeys(
        _NAMES, "plain" if device.type == "cpu" else "triton"
    )
    if head_dim not in _HEAD_DIMS:
        wanted |= dict.fromkeys(_MIXING, "plain")
    wanted |= replaced
    fused = [name for name, implementation in wanted.items() if implementation == "triton"]
    if fused and (reason := problem(device)) is not None:
        if asked := [name for name in fused if name in replaced]:
            raise CannotCapture(f"{reason}; choose plain for {', '.join(asked)}")
        logger.warning("%s: steps run PyTorch's operations, and slower", reason)
        fused = []
    if not fused:
        return plain.OPERATIONS
    from model.captured.fused import OPERATIONS  # where Triton is

    taken: dict[str, Any] = {name: getattr(OPERATIONS, name) for name in fused}
    return replace(plain.OPERATIONS, **taken)


def _verify(replaced: Mapping[str, str], head_dim: int) -> None:
    for name, implementation in replaced.items():
        if name not in _NAMES:
            raise CannotCapture(f"no operation {name!r}; there are {', '.join(_NAMES)}")
        if implementation not in ("plain", "triton"):
            raise CannotCapture(f"{name} cannot be {implementation!r}; choose plain or triton")
        if implementation == "triton" and name in _MIXING and head_dim not in _HEAD_DIMS:
            raise CannotCapture(
                f"Triton's {name} cannot read heads of {head_dim}; choose plain for it"
            )
