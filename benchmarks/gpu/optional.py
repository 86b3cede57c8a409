"""Stage optional: a residual branch by our kernels, and as PyTorch's own compiler fuses it."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import machines
from benchmarks.gpu.context import Context
from benchmarks.gpu.names import BART, OPUS
from benchmarks.gpu.records import Skipped
from benchmarks.gpu.timing import median_s, replayable, spin
from model.captured import plain
from model.captured.operations import Operations

_ROWS = 64


class Branch:
    """A feed-forward branch and its norm, random."""

    def __init__(self, context: Context, model: str, operations: Operations) -> None:
        config, device = context.config(model), context.device
        self._operations = operations
        self._activation = F.silu if config.activation == "silu" else F.gelu

        def drawn(*shape: int) -> Tensor:
            scale: float = shape[-1] ** -0.5
            return (torch.randn(shape, device=device) * scale).half()

        self._up, self._down = (
            drawn(config.decoder_hidden, config.width),
            drawn(config.width, config.decoder_hidden),
        )
        self._weight, self._bias = drawn(config.width) + 1, drawn(config.width)
        self.stream = torch.randn(_ROWS, config.width, device=device)
        self.hidden = self.stream.half()

    def __call__(self, stream: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stream and its norm after the branch."""
        update = F.linear(self._activation(F.linear(hidden, self._up)), self._down)
        return self._operations.add_norm(
            stream, update, self._weight, self._bias, 1e-5, "layer", False, torch.float16
        )


def run(context: Context) -> None:
    """Time both.

    Raises:
        Skipped: without a GPU.
    """
    if not context.is_gpu:
        raise Skipped("PyTorch's compiler is tried on a GPU only")
    spin(context.device)
    for model in (OPUS, BART):
        ours = Branch(context, model, machines.operations(context))
        theirs = Branch(context, model, plain.OPERATIONS)
        compiled = torch.compile(theirs.__call__, dynamic=False, fullgraph=True)
        runs = {"ours": partial(ours, ours.stream, ours.hidden)}
        runs["compiled"] = partial(compiled, theirs.stream, theirs.hidden)
        for case, branch in runs.items():
            seconds = median_s(replayable(branch, context.device), context.device)
            context.records.add(
                "residual branch", seconds * 1e6, "us", model=model, rows=_ROWS, case=case
            )
