"""Captures a step when it is first replayed: a stage needs few of all that a machine may run."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from model.captured.device import Device, Mark
from model.captured.graph import Graph


class _Later:
    def __init__(self, step: Callable[[], None], device: Device) -> None:
        self._step, self._device = step, device
        self._graph: Graph | None = None

    def replay(self) -> None:
        if self._graph is None:
            (self._graph,) = self._device.capture([self._step])
        self._graph.replay()


class Lazily:
    """A `Device` that is another one in all else."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.device: torch.device = device.device

    def decoding(self) -> AbstractContextManager[None]:
        """As `Device` says."""
        return self._device.decoding()

    def encoding(self) -> AbstractContextManager[None]:
        """As `Device` says."""
        return self._device.encoding()

    def mark(self) -> Mark:
        """As `Device` says."""
        return self._device.mark()

    def wait(self, mark: Mark) -> None:
        """As `Device` says."""
        self._device.wait(mark)

    def capture(self, steps: Sequence[Callable[[], None]]) -> list[Graph]:
        """Return graphs that are recorded at their first replay, which then runs once more."""
        return [_Later(step, self._device) for step in steps]

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """As `Device` says."""
        return self._device.pinned(*shape, dtype=dtype)

    def upload(self, source: Tensor, target: Tensor) -> None:
        """As `Device` says."""
        self._device.upload(source, target)

    def download(self, source: Tensor, target: Tensor) -> Mark:
        """As `Device` says."""
        return self._device.download(source, target)
