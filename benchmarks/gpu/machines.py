"""What the stages run: operations as chosen, and runners of an eager or a captured machine."""

from dataclasses import replace
from typing import cast

from benchmarks.gpu.context import Context
from benchmarks.gpu.stages import OPERATIONS
from model.captured import plain
from model.captured.chosen import Implementation, chosen
from model.captured.device import Cuda, Device, Host
from model.captured.operations import Operations
from model.captured.settings import CaptureSettings
from model.runner import Runner
from model.transformer import EncoderDecoder


def operations(context: Context) -> Operations:
    """Return those of the device, some replaced as the command asks."""
    return chosen(context.device, replaced(context))


def plain_ones(chosen_operations: Operations) -> list[str]:
    """Return the names of operations that run in their plain form."""
    return [
        name
        for name in OPERATIONS
        if getattr(chosen_operations, name) is getattr(plain.OPERATIONS, name)
    ]


def replaced(context: Context) -> dict[str, Implementation]:
    """Return what the command asks for, by operation."""
    return {name: cast(Implementation, which) for name, which in context.replaced.items()}


def device_of(context: Context) -> Device:
    """Return the streams and graphs of the device, or their stand-ins."""
    return Cuda(context.device) if context.is_gpu else Host()


def eager(network: EncoderDecoder, rows: int, longest: int) -> Runner:
    """Return the reference."""
    return Runner(
        network,
        rows=rows,
        max_target=longest,
        latent_bytes=0,
        end_is_forbidden=True,
        captured=False,
    )


def captured(
    context: Context,
    network: EncoderDecoder,
    rows: int,
    longest: int,
    settings: CaptureSettings | None = None,
) -> Runner:
    """Return a runner of captured steps; its rows end by their limits only.

    Raises:
        RuntimeError: steps could not be captured; what ran instead must not be measured.
    """
    if settings is None and context.bucket_min is not None:
        settings = CaptureSettings(bucket_min=context.bucket_min)
    runner = Runner(
        network,
        rows=rows,
        max_target=longest,
        latent_bytes=0,
        end_is_forbidden=True,
        captured=replace(settings or CaptureSettings(), replaced=replaced(context)),
    )
    if "CapturedMachine" not in repr(runner):
        raise RuntimeError("steps could not be captured; the warning above says why")
    return runner
