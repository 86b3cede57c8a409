"""Stage probe: the chip's two ceilings, and what launches and replays cost."""

import torch

from benchmarks.gpu.context import Context
from benchmarks.gpu.timing import block_s, host_s, median_s, replayable, spin

_ADDS = 200


def run(context: Context) -> None:
    """Measure the constants that all predictions rest on."""
    spin(context.device)
    _copy(context)
    _product(context)
    _launches(context)


def _copy(context: Context) -> None:
    """Bytes read and written per second; larger than any cache."""
    size = context.pick(2 * 2**30, 2**20)
    origin = torch.randint(0, 255, (size,), dtype=torch.uint8, device=context.device)
    target = torch.empty_like(origin)
    seconds = median_s(lambda: target.copy_(origin), context.device)
    context.records.add("copy", 2 * size / seconds / 1e9, "GB/s")


def _product(context: Context) -> None:
    size = context.pick(8192, 128)
    dtype = torch.bfloat16
    left, right = (torch.randn(size, size, device=context.device, dtype=dtype) for _ in range(2))
    seconds = median_s(lambda: left @ right, context.device)
    context.records.add("product", 2 * size**3 / seconds / 1e12, "TFLOP/s")


def _launches(context: Context) -> None:
    device, add = context.device, context.records.add
    one = torch.randn(64, 512, device=device)
    other = torch.full_like(one, 1e-3)

    def adds(count: int) -> None:
        for _ in range(count):
            one.add_(other)

    def many() -> None:
        adds(_ADDS)

    replay, double = replayable(many, device), replayable(lambda: adds(2 * _ADDS), device)
    once = median_s(replay, device)
    add("add in a graph", once / _ADDS * 1e6, "us")
    add("launch", host_s(lambda: one.add_(other), device, 100) * 1e6, "us", case="torch")
    single = replayable(lambda: adds(1), device)
    add("replay on the host", host_s(replay, device, 20) * 1e6, "us")
    add("replay on the host", host_s(single, device, 100) * 1e6, "us", case="of one kernel")
    twice = block_s(replay, device, 50) * 2
    add("gap between replays", (twice - median_s(double, device)) * 1e6, "us")
