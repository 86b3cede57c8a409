"""Stage environment: the device, the driver, and the versions of all that decides a figure."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.gpu import machines
from benchmarks.gpu.context import Context

_ROOT = Path(__file__).parents[2]


def run(context: Context) -> None:
    """Record them; the first use of the device happens here, and takes its time."""
    torch.ones(8, device=context.device).sum().item()
    details = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "triton": _version("triton"),
        "driver": _driver() if context.is_gpu else "",
        "python": platform.python_version(),
        "commit": context.commit or commit(),
        "is_tiny": context.is_tiny,
        "plain": machines.plain_ones(machines.operations(context)),
    }
    context.records.add("device", device_name(context.device), **details)


def device_name(device: torch.device) -> str:
    """Return what the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def commit() -> str:
    """Return the commit measured, marked where files differ from it; empty without git."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()
