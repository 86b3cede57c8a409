"""A stand-in for `torch.cuda` on a CPU: streams that are one, events by the clock, graphs by tape.

What is given a device of CUDA runs on the CPU instead, so that every line that only a GPU reaches
has run before there is one. It shows no race and no mistaken order.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from model.captured import device, machine
from model.captured.graph import _Recorder


class OnCpu(TorchFunctionMode):
    """Replaces devices in arguments, and what a CPU cannot do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is torch.device:
            return func(*args, **named)
        if getattr(func, "__name__", "") == "pin_memory":
            return args[0]
        named = {name: _on_cpu(value) for name, value in named.items() if name != "pin_memory"}
        if func is torch.mm and named.pop("out_dtype", None):
            return func(*args).float()
        return func(*map(_on_cpu, args), **named)


def _on_cpu(value: Any) -> Any:
    return torch.device("cpu") if isinstance(value, torch.device) else value


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.moment = 0.0

    def record(self, stream: Any = None) -> None:
        self.moment = time.perf_counter()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: "Event") -> float:
        return (later.moment - self.moment) * 1e3


class Stream:
    def __init__(self, device: Any = None, priority: int = 0) -> None:
        pass

    def wait_stream(self, stream: "Stream") -> None:
        assert isinstance(stream, Stream)

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)

    def record_event(self, event: Event | None = None) -> Event:
        made = event or Event()
        made.record()
        return made

    def synchronize(self) -> None:
        pass


class CUDAGraph:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def replay(self) -> None:
        assert self.calls, "replayed before it was captured"
        for call in self.calls:
            call.replay()


@contextlib.contextmanager
def graph(
    captured: CUDAGraph,
    pool: Any = None,
    stream: Stream | None = None,
    capture_error_mode: str = "global",
) -> Iterator[None]:
    assert stream is None or isinstance(stream, Stream)
    with _Recorder() as recorder:
        yield
    captured.calls = recorder.calls


@contextlib.contextmanager
def one_stream(stream: Stream) -> Iterator[None]:
    assert isinstance(stream, Stream)
    yield


class Thread(threading.Thread):
    """Modes belong to a thread."""

    def run(self) -> None:
        with OnCpu():
            super().run()


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Let this process see one GPU, and captured machines use its streams and graphs."""
    current = Stream()
    fakes: dict[str, Any] = {
        "CUDAGraph": CUDAGraph,
        "Event": Event,
        "Stream": Stream,
        "current_stream": lambda device=None: current,
        "device": lambda device: contextlib.nullcontext(),
        "device_count": lambda: 1,
        "get_device_name": lambda device=None: "a fake",
        "graph": graph,
        "graph_pool_handle": lambda: (0, 0),
        "memory_reserved": lambda device=None: 0,
        "set_sync_debug_mode": lambda mode: None,
        "stream": one_stream,
        "synchronize": lambda device=None: None,
    }
    for name, fake in fakes.items():
        assert hasattr(torch.cuda, name)
        patch.setattr(torch.cuda, name, fake)
    patch.setattr(machine, "Host", lambda: device.Cuda(torch.device("cuda", 0)))
    patch.setattr(threading, "Thread", Thread)
