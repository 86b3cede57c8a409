"""How much memory a process holds; Linux only, zeros elsewhere."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident megabytes (10^6 bytes), now and at most."""

    held_mb: float
    peak_mb: float


def memory_of(pid: int) -> Memory:
    """Return what a process holds, and held at most since it began."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Memory(0.0, 0.0)
    kilobytes = {k: int(v) for k, v in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.M)}
    held, peak = (kilobytes.get(name, 0) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return Memory(held, peak)
