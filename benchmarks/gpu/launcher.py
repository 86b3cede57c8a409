"""Runs stages one after the other, each in a process of its own that is ended at its limit."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from benchmarks.gpu.records import ENDED, FAILED, OK, SKIPPED, TIMED_OUT, Records
from benchmarks.gpu.stages import Stage

SKIPPED_CODE = 77  # with which a stage's process says that it printed why it cannot be measured
_LEAST_S = 5.0  # below which a stage is not begun
_SHOWN = 15  # lines of what a failed stage said


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its code, None if it was ended at its limit, and its last words."""

    code: int | None
    said: Sequence[str]


class RunsProcesses(Protocol):
    """What `launch` needs of `run_process`."""

    def __call__(self, command: Sequence[str], limit_s: float) -> Ended:
        """Run a command for so long at most."""


def run_process(command: Sequence[str], limit_s: float) -> Ended:
    """Run a command; at its limit it is killed with all that it started."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stderr=errors, process_group=0)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also where this process is interrupted
            _kill(process)
        return Ended(code, _last_lines(errors))


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process's group: a server that a stage started is in it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _last_lines(errors: IO[bytes]) -> list[str]:
    errors.seek(0)
    return errors.read().decode(errors="replace").splitlines()[-_SHOWN:]


def launch(
    stages: Sequence[Stage],
    command: Callable[[Stage, float], Sequence[str]],
    path: Path,
    seconds: float,
    *,
    run: RunsProcesses = run_process,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Run stages until all have ended or the time is over; how each ended is recorded.

    Without the stage that every call begins with, there are no others.

    Args:
        command: what to run for a stage that is killed at a moment of `now`.
        seconds: for all of them; a stage gets its own limit or what is left.
    """
    until = now() + seconds
    for stage in stages:
        records, began = Records(path, stage.name), now()
        limit_s = min(stage.limit_s, until - began)
        if limit_s < _LEAST_S:
            records.add(ENDED, SKIPPED + ": no time was left", seconds=0.0)
            continue
        print(f"-- {stage.name}: {stage.decides} (at most {limit_s:.0f} s)", flush=True)  # noqa: T201
        ended = run(command(stage, began + limit_s), limit_s)
        status = _status(ended.code)
        if status in (FAILED, TIMED_OUT):
            print("\n".join(ended.said), file=sys.stderr, flush=True)  # noqa: T201
        reason = ended.said[-1] if ended.said and status != OK else ""
        records.add(ENDED, status, seconds=round(now() - began, 1), code=ended.code, reason=reason)
        if stage.call == 0 and status != OK:
            return  # no other could do better


def _status(code: int | None) -> str:
    if code is None:
        return TIMED_OUT
    return {0: OK, SKIPPED_CODE: SKIPPED}.get(code, FAILED)
