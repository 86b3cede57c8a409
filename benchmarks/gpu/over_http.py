"""Stage served."""

from benchmarks.gpu.context import Context
from benchmarks.gpu.records import Skipped


def run(context: Context) -> None:
    """Skip."""
    raise Skipped("not yet")
