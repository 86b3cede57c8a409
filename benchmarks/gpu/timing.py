"""Times work on a device: by events and in captured graphs on a GPU, by the clock on a CPU."""

import statistics
import time
from collections.abc import Callable

import torch

Run = Callable[[], object]
BLOCKS = 5  # medians are taken over them
SPIN_S = 1.0
_BLOCK_S = {"cuda": 0.02, "cpu": 0.001}  # that a block takes at least


def synchronise(device: torch.device) -> None:
    """Wait for all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spin(device: torch.device) -> None:
    """Keep a GPU busy, so that its clocks are up when something is timed."""
    until = time.monotonic() + SPIN_S
    while device.type == "cuda" and time.monotonic() < until:
        square = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
        for _ in range(20):
            square @ square
        synchronise(device)


def replayable(run: Run, device: torch.device) -> Run:
    """Capture `run` into a graph and return its replay; on a CPU, `run` itself.

    Three runs come first: what they compile or allocate must not be captured.
    """
    if device.type != "cuda":
        return run
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    synchronise(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    return graph.replay


def block_s(run: Run, device: torch.device, repeats: int) -> float:
    """Return the seconds of one of `repeats` runs that follow each other, on the device."""
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - began) / repeats
    start, end = event(), event()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000 / repeats


def event() -> torch.cuda.Event:
    """Return an event that knows when it was passed."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def median_s(run: Run, device: torch.device, blocks: int = BLOCKS) -> float:
    """Return the seconds of a run: the median over blocks long enough to be timed."""
    run()
    once = max(block_s(run, device, 2), 1e-7)
    repeats = max(1, min(2000, round(_BLOCK_S[device.type] / once)))
    return statistics.median(block_s(run, device, repeats) for _ in range(blocks))


def host_s(run: Run, device: torch.device, repeats: int, blocks: int = BLOCKS) -> float:
    """Return the seconds that the host takes to launch a run; none of them is waited for."""
    found = []
    for _ in range(blocks):
        synchronise(device)
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        found.append((time.perf_counter() - began) / repeats)
    synchronise(device)
    return statistics.median(found)


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
