"""How much memory a process holds and how much is free; Linux only, zeros or infinite elsewhere."""

import math
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident megabytes (10^6 bytes), now and at most."""

    held_mb: float
    peak_mb: float


def available_mb(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Return how much new processes can take without swapping; infinite where nothing says."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.M)
    except OSError:
        return math.inf
    return int(found[1]) * 1024 / 1e6 if found else math.inf


def memory_of(pid: int) -> Memory:
    """Return what a process holds, and held at most since it began."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Memory(0.0, 0.0)
    kilobytes = {k: int(v) for k, v in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.M)}
    held, peak = (kilobytes.get(name, 0) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return Memory(held, peak)
