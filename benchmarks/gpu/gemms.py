"""Stage gemms: every product of a decode step by its number of rows, cold weights, in a graph."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.context import Context
from benchmarks.gpu.limits import H100
from benchmarks.gpu.names import BART, MODELS, NLLB, OPUS, T5
from benchmarks.gpu.timing import median_s, replayable, spin

_CACHE_BYTES = 200e6  # rotated through, so that no weight is found in the chip's cache
_ROWS = (64, 8, 128, 32, 256, 16, 2, 1)  # those that decide first
_SAME = 1.15  # a bucket of 64 rows that costs no more than this of one of 8 makes that needless


@dataclass(frozen=True, slots=True)
class Product:
    """Inputs of `width` times a weight [out, width]."""

    name: str
    width: int
    out: int


def products(width: int, hidden: int) -> list[Product]:
    """Return the products of a layer, joined as the captured step joins them."""
    return [
        Product("queries, keys, values", width, 3 * width),
        Product("out", width, width),
        Product("up", width, hidden),
        Product("down", hidden, width),
    ]


def run(context: Context) -> None:
    """Time them; whether small buckets are worth having follows."""
    spin(context.device)
    found: dict[tuple[int, int, str], float] = {}
    for rows in context.pick(_ROWS, (8, 2)):
        for model in (OPUS, BART):  # T5-small and NLLB have the same dimensions
            config = context.config(model)
            for product in products(config.width, config.decoder_hidden):
                if not context.has_time(1):
                    return
                seconds = _time(context, product, rows)
                found[rows, config.width, product.name] = seconds
        _heads(context, rows)
        if rows == 8:
            _decide(context, found)
    _forms(context)


def _decide(context: Context, found: dict[tuple[int, int, str], float]) -> None:
    """Compare 64 rows with 8."""
    for model in (OPUS, BART):
        width = context.config(model).width
        sums = {
            rows: sum(s for (r, w, _), s in found.items() if (r, w) == (rows, width))
            for rows in (64, 8)
        }
        if all(sums.values()):
            ratio = sums[64] / sums[8]
            needless = ratio <= _SAME
            context.records.add("64 rows / 8 rows", ratio, model=model, is_8_needless=needless)


def _time(context: Context, product: Product, rows: int) -> float:
    """Record the mean of one product in a graph of many, each with weights of its own."""
    dtype = torch.float16
    weights = _weights(context, product, dtype)
    inputs = torch.randn(rows, product.width, device=context.device, dtype=dtype)
    bias = torch.randn(product.out, device=context.device, dtype=dtype)
    seconds = _mean_s(context, lambda w: torch.addmm(bias, inputs, w.T), weights)
    name = f"product, {product.width if product.name != 'down' else product.out} wide"
    limit = product.width * product.out * 2 / H100.bytes_per_s
    context.records.add(
        name, seconds * 1e6, "us", rows=rows, case=product.name, limit_us=limit * 1e6
    )
    return seconds


def _mean_s(context: Context, multiply: object, weights: Sequence[Tensor]) -> float:
    assert callable(multiply)

    def all_of_them() -> None:
        for weight in weights:
            multiply(weight)

    return median_s(replayable(all_of_them, context.device), context.device) / len(weights)


def _weights(context: Context, product: Product, dtype: torch.dtype) -> list[Tensor]:
    size = product.width * product.out * 2
    count = context.pick(max(4, min(150, round(_CACHE_BYTES / size))), 2)
    scale = product.width**-0.5
    return [
        torch.randn(product.out, product.width, device=context.device, dtype=dtype) * scale
        for _ in range(count)
    ]


def _heads(context: Context, rows: int) -> None:
    """The product with the vocabulary, in float32 where the device can."""
    for model in MODELS:
        if not context.has_time(1):
            return
        config = context.config(model)
        padded = -(-config.vocabulary // 64) * 64
        weights = _weights(context, Product("vocabulary", config.width, padded), torch.float16)
        inputs = torch.randn(rows, config.width, device=context.device, dtype=torch.float16)

        def multiply(weight: Tensor, inputs: Tensor = inputs) -> Tensor:
            if context.is_gpu:
                return torch.mm(inputs, weight.T, out_dtype=torch.float32)
            return (inputs @ weight.T).float()

        seconds = _mean_s(context, multiply, weights)
        limit = padded * config.width * 2 / H100.bytes_per_s
        context.records.add(
            "product with the vocabulary",
            seconds * 1e6,
            "us",
            model=model,
            rows=rows,
            limit_us=limit * 1e6,
        )


def _forms(context: Context) -> None:
    """A bias added, none, and a ReLU in the epilogue, at 64 rows of the layer's first product."""
    for model in (T5, NLLB):
        config, dtype = context.config(model), torch.float16
        product = Product("up", config.width, config.decoder_hidden)
        weights = _weights(context, product, dtype)
        inputs = torch.randn(64, product.width, device=context.device, dtype=dtype)
        bias = torch.randn(product.out, device=context.device, dtype=dtype)
        forms = {
            "with bias": lambda w, b=bias, x=inputs: torch.addmm(b, x, w.T),
            "without": lambda w, x=inputs: x @ w.T,
            "with bias and ReLU": lambda w, b=bias, x=inputs: torch._addmm_activation(b, x, w.T),
        }
        for name, multiply in forms.items():
            seconds = _mean_s(context, multiply, weights)
            case = f"{config.width} wide, {name}"
            context.records.add("form of a product", seconds * 1e6, "us", rows=64, case=case)
