"""Where captured steps run: streams, events, pinned memory and graphs, or their stand-ins."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from model.captured.graph import Graph, Step, TapeGraph

WARM_UPS = 3  # load modules, compile kernels, size workspaces: none of it may happen in a capture


class Mark(Protocol):
    """A point in what a device has been given to do."""

    def query(self) -> bool:
        """Whether it has been reached."""

    def synchronize(self) -> None:
        """Wait until it has been reached."""


class Device(Protocol):
    """Two queues of work, one that decodes and one that encodes, and what both need of the host."""

    @property
    def device(self) -> torch.device:
        """Where tensors are."""

    def decoding(self) -> AbstractContextManager[None]:
        """Give what follows to the queue that decodes, in this thread."""

    def encoding(self) -> AbstractContextManager[None]:
        """Give what follows to the queue that encodes, after all that decodes so far.

        What the caller's own queue is given afterwards comes after it.
        """

    def mark(self) -> Mark:
        """Mark the end of what the queue at hand has been given."""

    def wait(self, mark: Mark) -> None:
        """Let the queue at hand go on only after `mark`; the host does not wait."""

    def capture(self, steps: Sequence[Step]) -> list[Graph]:
        """Record steps that never run at once, in their order; each is run before as well."""

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return zeros on the host that the device can copy to while the host does other things."""

    def upload(self, source: Tensor, target: Tensor) -> None:
        """Copy from pinned memory, which may be written again after a later mark."""

    def download(self, source: Tensor, target: Tensor) -> Mark:
        """Copy to pinned memory what the queue will have written by now, beside what follows."""


def on_device(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device; the host does not wait for what the device does."""
    tensor = torch.tensor(values, dtype=dtype)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def settled(device: torch.device) -> Iterator[None]:
    """Launch on a GPU, and wait until what was launched is done, or has failed."""
    with torch.cuda.device(device):
        yield
        torch.cuda.synchronize()


def give_back(device: torch.device) -> None:
    """Return memory that nobody holds any more, whatever stream it was taken for."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class _Reached:
    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class Host:
    """A `Device` that does everything at once, by tapes, so that all can be tested without one."""

    device = torch.device("cpu")

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """As `Device` says."""
        with torch.inference_mode():
            yield

    encoding = decoding

    def mark(self) -> Mark:
        """As `Device` says."""
        return _Reached()

    def wait(self, mark: Mark) -> None:
        """As `Device` says."""

    def capture(self, steps: Sequence[Step]) -> list[Graph]:
        """As `Device` says."""
        return [TapeGraph(step) for step in steps]

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """As `Device` says."""
        return torch.zeros(shape, dtype=dtype)

    def upload(self, source: Tensor, target: Tensor) -> None:
        """As `Device` says."""
        target.copy_(source)

    def download(self, source: Tensor, target: Tensor) -> Mark:
        """As `Device` says."""
        target.copy_(source)
        return _Reached()


class Cuda:
    """A `Device` of streams, with priority for the one that decodes.

    Events spin while the host waits for them. An error of a device is sticky: every later call
    raises as well, so that an engine's probe fails too, or its thread ends. Either way its
    readiness goes off for good.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        matmul = torch.backends.cuda.matmul  # partial sums in half precision would lose digits
        matmul.allow_fp16_reduced_precision_reduction = False
        matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every shape
        with torch.cuda.device(device):
            self._decode = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
            self._encode = torch.cuda.Stream(priority=0)  # type: ignore[no-untyped-call]
            self._copy = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """As `Device` says; mode, device and stream belong to a thread, so each call sets them."""
        with (
            torch.inference_mode(),
            torch.cuda.device(self.device),
            torch.cuda.stream(self._decode),
        ):
            yield

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """As `Device` says."""
        with torch.inference_mode(), torch.cuda.device(self.device):
            caller = torch.cuda.current_stream()
            self._encode.wait_stream(self._decode)
            with torch.cuda.stream(self._encode):
                yield
            caller.wait_stream(self._encode)

    def mark(self) -> Mark:
        """As `Device` says."""
        event: Mark = torch.cuda.current_stream().record_event()
        return event

    def wait(self, mark: Mark) -> None:
        """As `Device` says."""
        assert isinstance(mark, torch.cuda.Event)
        torch.cuda.current_stream().wait_event(mark)

    def capture(self, steps: Sequence[Step]) -> list[Graph]:
        """As `Device` says; all on the stream of replay, in one pool."""
        torch.cuda.synchronize(self.device)  # what steps read was made on another stream
        collects = gc.isenabled()
        gc.disable()  # what is freed during a capture would break it
        try:
            with self.decoding():
                return [self._captured(step) for step in steps]
        finally:
            if collects:
                gc.enable()

    def _captured(self, step: Callable[[], None]) -> Graph:
        for _ in range(WARM_UPS):
            step()
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        # Another model's thread may use the device meanwhile.
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self._pool, stream=self._decode, capture_error_mode=mode):
            step()
        return graph

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """As `Device` says."""
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def upload(self, source: Tensor, target: Tensor) -> None:
        """As `Device` says."""
        target.copy_(source, non_blocking=True)

    def download(self, source: Tensor, target: Tensor) -> Mark:
        """As `Device` says; on a stream of its own, beside the next step."""
        self._copy.wait_event(torch.cuda.current_stream().record_event())
        with torch.cuda.stream(self._copy):
            target.copy_(source, non_blocking=True)
            return self.mark()
