"""Eight-bit layers for CPUs, in which no row sees its neighbours.

Weights have one scale for each output channel, activations one for each row, found as the row
comes. PyTorch's dynamic quantisation takes one scale for all rows of a call: a row's result would
depend on what else is in the batch.
"""

import contextlib
import ctypes
import functools
import warnings
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.transformer import EncoderDecoder

_LANES = 32  # of vectors: PyTorch computes what is left over with other bits
_LARGEST_HALF = torch.finfo(torch.float16).max


class _Packed(Protocol):
    """Weights in the memory layout of PyTorch's eight-bit operators, which alone can read it."""


def _pack(weight: Tensor) -> _Packed:
    """Round `weight` [out, in] to eight bits, each output channel by its own scale."""
    scales = torch.linalg.vector_norm(weight, torch.inf, dim=1).double() / 127
    scales.clamp_min_(torch.finfo(torch.float32).tiny)  # of channels of zeros
    zeros = torch.zeros(len(weight), dtype=torch.long)
    with warnings.catch_warnings():  # quantised tensors are to leave PyTorch one day
        warnings.simplefilter("ignore", UserWarning)
        rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        return cast(_Packed, torch.ops.quantized.linear_prepack(rounded, None))


def _multiply(fractions: Tensor, packed: _Packed, steps: int) -> Tensor:
    """Round `fractions`, in [-1, 1], to multiples of 1/steps and multiply by the packed weights."""
    operator = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
    return cast(Tensor, operator(fractions, 1 / steps, steps, packed))


@functools.cache
def activation_steps() -> int:
    """Return how finely activations can be rounded here: 127, 63, or 0 if there is no int8.

    127 (eight bits) is exact on CPUs with AVX-512 VNNI. Others add two products in 16 bits, which
    saturates unless activations have seven bits: 63. Without the operators: 0. Found by trying,
    since it depends on PyTorch's build as well as on the CPU.
    """
    try:
        packed = _pack(torch.ones(32, 64))
        for steps in (127, 63):
            if torch.equal(_multiply(torch.ones(8, 64), packed, steps), torch.full((8, 32), 64.0)):
                return steps
    except (AttributeError, NotImplementedError, RuntimeError):
        pass  # no such operator in this build
    return 0


class Int8Linear(nn.Module):
    """A linear layer multiplied in eight bits and summed in 32; float32 in, float32 out."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantise `weight` [out, in]; `bias` [out] stays as it is."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self.bias: Tensor | None
        self._packed = _pack(weight.detach().float())
        self._steps = activation_steps()

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., in] -> [..., out]; what is not finite spoils its own row, and that entirely.

        A row of zeros becomes NaNs, which the operator rounds to something finite, and is zeros
        again when multiplied by its largest value.
        """
        largest = hidden.abs().amax(-1, keepdim=True)
        product = _multiply(hidden / largest, self._packed, self._steps)
        if self.bias is None:
            return product.mul_(largest)
        return torch.addcmul(self.bias, product, largest, out=product)

    def extra_repr(self) -> str:
        """Describe it as nn.Linear does."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


class HalfEmbedding(nn.Module):
    """An embedding table kept in float16 and read in float32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", weight.detach().half())
        self.table: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        """[...] token ids -> [..., width]."""
        return F.embedding(tokens, self.table).float()


@torch.no_grad()
def quantise(network: EncoderDecoder) -> None:
    """Replace every linear layer of a network on the CPU by its eight-bit form, one at a time.

    Embedding tables, which the output layer may share, are kept in float16 for look-ups unless
    they exceed its range. Norms, attention and softmax stay in float32.
    """
    for layer in [*network.encoder, *network.decoder]:
        _join(layer.get_submodule("attention"), "query", "key", "value")
    for layer in network.decoder:
        _join(layer.get_submodule("cross"), "key", "value")
    network.set_submodule("output", Int8Linear(network.output.weight, network.logits_bias))
    network.logits_bias = None
    halves: dict[Tensor, HalfEmbedding] = {}  # by the table they share
    for name in [name for name, _ in network.named_modules(remove_duplicate=False)]:
        module = network.get_submodule(name)
        if isinstance(module, nn.Linear):
            network.set_submodule(name, Int8Linear(module.weight, module.bias))
        elif isinstance(module, nn.Embedding):
            table = module.weight
            if table not in halves and max(table.max(), -table.min()) <= _LARGEST_HALF:
                halves[table] = HalfEmbedding(table)
            network.set_submodule(name, halves.get(table, module))
    if network.config.decoder_hidden % _LANES == 0:
        network.row_step = 1  # nothing that is left looks at several rows at once
    return_freed_memory()


def _join(attention: nn.Module, *names: str) -> None:
    """Let one layer make the projections `names`, which read the same, in their order."""
    linears = [cast(nn.Linear, attention.get_submodule(name)) for name in names]
    has_bias = linears[0].bias is not None
    bias = torch.cat([linear.bias for linear in linears]) if has_bias else None
    attention.joint = Int8Linear(torch.cat([linear.weight for linear in linears]), bias)
    for name in names:
        delattr(attention, name)


def return_freed_memory() -> None:
    """Give the float32 weights' pages back to the system, which glibc would keep between others."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
