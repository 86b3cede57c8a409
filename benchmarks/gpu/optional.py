"""Stage optional: what PyTorch's own compiler makes of a step, beside the captured one."""

import statistics

from benchmarks.gpu.context import Context
from benchmarks.gpu.records import Skipped


def run(context: Context) -> None:
    """Compare."""
    if not context.is_gpu:
        raise Skipped("PyTorch's compiler is tried on a GPU only")
    del statistics
