"""Which implementation of each operation a device runs, and what replaces one that fails."""

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Any, Literal

import torch

from model.captured import plain
from model.captured.operations import Operations

Implementation = Literal["plain", "triton"]
_NAMES = [field.name for field in fields(Operations)]
_MIXING = ("append_attend", "cross_attend")  # by heads, whose width the kernels build on
_HEAD_DIMS = (16, 32, 64, 128)


def chosen(
    device: torch.device,
    replaced: Mapping[str, Implementation] | None = None,
    *,
    head_dim: int = 64,
) -> Operations:
    """Return the operations for `device`: Triton's where there is Triton, on a CPU the plain ones.

    Args:
        replaced: by the name of an operation, which implementation of it is taken instead.
        head_dim: of the decoder; Triton's attention is for powers of two from 16 to 128 only, and
            others are left to the plain one.

    Raises:
        ValueError: for an operation or an implementation that does not exist or cannot be had.
    """
    replaced = replaced or {}
    _verify(replaced, head_dim)
    has_triton = find_spec("triton") is not None and device.type != "cpu"
    wanted = dict.fromkeys(_NAMES, "triton" if has_triton else "plain")
    if head_dim not in _HEAD_DIMS:
        wanted |= dict.fromkeys(_MIXING, "plain")
    wanted |= replaced
    fused = [name for name, implementation in wanted.items() if implementation == "triton"]
    if not fused:
        return plain.OPERATIONS
    from model.captured.fused import OPERATIONS  # where Triton is

    taken: dict[str, Any] = {name: getattr(OPERATIONS, name) for name in fused}
    return replace(plain.OPERATIONS, **taken)


def _verify(replaced: Mapping[str, str], head_dim: int) -> None:
    for name, implementation in replaced.items():
        if name not in _NAMES:
            raise ValueError(f"no operation {name!r}; there are {', '.join(_NAMES)}")
        if implementation not in ("plain", "triton"):
            raise ValueError(f"{name} cannot be {implementation!r}; choose plain or triton")
        if implementation == "triton":
            if find_spec("triton") is None:
                raise ValueError(f"Triton is not installed; install it, or choose plain for {name}")
            if name in _MIXING and head_dim not in _HEAD_DIMS:
                raise ValueError(
                    f"Triton's {name} cannot read heads of {head_dim}; choose plain for it"
                )
