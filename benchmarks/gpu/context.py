"""What every stage is given: where it runs, what is replaced, and how long it may take."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from benchmarks.gpu import shapes
from benchmarks.gpu.records import NoDevice, Records
from model.config import ModelConfig

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """One stage's circumstances.

    Attributes:
        is_tiny: toy sizes and few repetitions, which prove that everything runs.
        replaced: {operation: implementation}, where not the default one.
        bucket_min: rows of the smallest captured step, where not the machine's own choice.
        commit: what is measured, where git cannot say it.
        until: the moment, of `now`, at which the stage would be killed.
    """

    device: torch.device
    is_tiny: bool
    replaced: Mapping[str, str]
    records: Records
    until: float
    bucket_min: int | None = None
    commit: str = ""
    now: Callable[[], float] = time.monotonic

    @property
    def is_gpu(self) -> bool:
        """Whether what is measured means anything."""
        return self.device.type == "cuda"

    @property
    def blocks(self) -> int:
        """How many times a figure is taken; it is their median."""
        return self.pick(5, 2)

    def config(self, model: str) -> ModelConfig:
        """Return a model's description, in this run's size."""
        return shapes.config(model, is_tiny=self.is_tiny)

    def has_time(self, seconds: float) -> bool:
        """Whether something that takes so long still ends before the stage is killed."""
        return self.now() + seconds < self.until

    def pick(self, real: T, tiny: T) -> T:
        """Return the one for this run's size."""
        return tiny if self.is_tiny else real


def existing(name: str) -> torch.device:
    """Return the device of this name, with its index.

    Raises:
        NoDevice: it is not there.
    """
    device, count = torch.device(name), torch.cuda.device_count()
    if device.type != "cuda":
        return device
    if (device.index or 0) >= count:
        raise NoDevice(
            f"device {name} is not there: this build of PyTorch sees {count} GPUs; "
            "--device cpu --tiny proves that everything runs"
        )
    return torch.device("cuda", device.index or 0)


@contextmanager
def prepared(device: torch.device) -> Iterator[None]:
    """Infer on a stream of our own, and let nothing be rounded more than it says."""
    with torch.inference_mode():
        if device.type != "cuda":
            yield
            return
        matmul = torch.backends.cuda.matmul
        matmul.allow_tf32 = False
        matmul.allow_fp16_reduced_precision_reduction = False
        matmul.allow_bf16_reduced_precision_reduction = False
        with torch.cuda.device(device):
            stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                yield
