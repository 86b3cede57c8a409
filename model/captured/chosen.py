"""Which implementation of each operation a device runs, and what replaces one that fails."""

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Literal

import torch

from model.captured import plain
from model.captured.operations import Operations

Implementation = Literal["plain", "triton"]


def chosen(
    device: torch.device, replaced: Mapping[str, Implementation] | None = None
) -> Operations:
    """Return the operations for `device`: Triton's where there is Triton, on a CPU the plain ones.

    Args:
        replaced: by the name of an operation, which implementation of it is taken instead.

    Raises:
        ValueError: for an operation or an implementation that does not exist, or Triton that is
            not installed.
    """
    names = [field.name for field in fields(Operations)]
    replaced = replaced or {}
    for name, implementation in replaced.items():
        if name not in names:
            raise ValueError(f"no operation {name!r}; there are {', '.join(names)}")
        if implementation not in ("plain", "triton"):
            raise ValueError(f"{name} cannot be {implementation!r}; choose plain or triton")
    has_triton = find_spec("triton") is not None
    if "triton" in replaced.values() and not has_triton:
        raise ValueError("Triton is not installed; install it, or choose plain")
    default = "triton" if has_triton and device.type != "cpu" else "plain"
    wanted = {name: replaced.get(name, default) for name in names}
    if "triton" not in wanted.values():
        return plain.OPERATIONS
    from model.captured import fused  # where Triton is

    by_name = {"plain": plain.OPERATIONS, "triton": fused.OPERATIONS}
    return replace(
        plain.OPERATIONS,
        **{name: getattr(by_name[implementation], name) for name, implementation in wanted.items()},
    )
