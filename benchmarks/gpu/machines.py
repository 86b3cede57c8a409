"""What the stages run: operations as chosen, and runners of an eager or a captured machine."""

from dataclasses import fields, replace

from benchmarks.gpu.bare import is_installed
from benchmarks.gpu.context import Context
from model.captured import plain
from model.captured.operations import Operations

PLAIN = "plain"
NAMES = tuple(field.name for field in fields(Operations))


def default_operations(context: Context) -> Operations:
    """Return the fused operations, or the plain ones where there is no GPU or no Triton."""
    if not (context.is_gpu and is_installed("triton")):
        return plain.OPERATIONS
    from model.captured.kernels import OPERATIONS

    return OPERATIONS


def operations(context: Context) -> Operations:
    """Return them as the command asks: some replaced by their plain twins."""
    twins = {name: getattr(plain.OPERATIONS, name) for name in context.replaced}
    return replace(default_operations(context), **twins)
