"""What the sections of the benchmark share: what is measured, and where results go."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from benchmarks.direct import Ids, Work
from benchmarks.figures import Paired, in_turns
from benchmarks.memory import Memory
from benchmarks.texts import mixture, sentences
from benchmarks.worker import Worker

ROOT = Path(__file__).parent.parent
TURNS = 5  # of a comparison
LEAST = 3  # of one offline, even where they exceed the section's budget
REST_S = 0.25  # OpenMP's threads of the subject before spin for up to 0.2 s

# CTranslate2's threads: of one batch, and batches at the same time. The best are taken, case by
# case, by measurement.
THREADS = {"intra 1": (1, 1), "intra 2": (2, 1), "inter 2": (1, 2)}


@dataclass(slots=True)
class Results:
    """What was found.

    Attributes:
        ratios: by the goals' keys.
        reasons: why a goal was not measured.
        notes: what to know beside a goal's figure.
        sections: {section: figures}, for the JSON file.
        memory: {process: megabytes}.
    """

    ratios: dict[str, Paired] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark.

    Attributes:
        folder: of the checkpoints made for it.
        bundled: the checkpoint that translates for real.
        is_quick: fewer turns and shorter windows: to see that it works, not to cite.
        targets: {case: {engine: what it generated in int8}}, to be compared with float32's.
    """

    folder: Path
    bundled: Path
    is_quick: bool
    results: Results = field(default_factory=Results)
    targets: dict[str, dict[str, list[Ids]]] = field(default_factory=dict)

    @cached_property
    def lines(self) -> list[str]:
        """Held-out English sentences."""
        return sentences()

    @cached_property
    def mixed(self) -> list[str]:
        """Sentences of mixed lengths."""
        return mixture(self.lines, 640, seed=1)

    @property
    def base(self) -> Path:
        """Marian base."""
        return self.folder / "base"

    def converted(self, name: str) -> Path:
        """Return CTranslate2's conversion of base or bundled."""
        return self.folder / f"ct2-{name}"

    @property
    def turns(self) -> int:
        """How often a comparison is repeated."""
        return 1 if self.is_quick else TURNS

    def seconds(self, window_s: float) -> float:
        """Return the length of a window of load."""
        return min(window_s, 2) if self.is_quick else window_s

    def remember(self, name: str, loaded: Memory, now: Memory) -> None:
        """Keep what a process held once it was loaded, and at most."""
        self.results.memory[name] = {
            "loaded_mb": round(loaded.held_mb, 1),
            "peak_mb": round(now.peak_mb, 1),
        }

    def say(self, text: str) -> None:
        """Show progress."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201


def translate_in_turns(
    subjects: Mapping[str, Worker], work: Work, turns: int, until: float
) -> tuple[dict[str, list[float]], dict[str, list[list[int]]]]:
    """Return each worker's seconds by turn, three where there are as many, and its targets."""
    targets: dict[str, list[list[int]]] = {}

    def measure(name: str) -> float:
        seconds, targets[name] = subjects[name].translate(work)
        return seconds

    calls = {name: partial(measure, name) for name in subjects}
    return in_turns(calls, turns=turns, until=until, least=LEAST, rest_s=REST_S), targets


def best_threads(workers: Mapping[str, Worker], work: Work) -> tuple[str, dict[str, float]]:
    """Return which of CTranslate2's thread settings is fastest, and the seconds of each."""
    subjects = {name: partial(worker.seconds, work) for name, worker in workers.items()}
    found = in_turns(subjects, turns=1, until=0, rest_s=REST_S)
    seconds = {name: each[0] for name, each in found.items()}
    return min(seconds, key=seconds.__getitem__), seconds


def run_module(name: str, *arguments: str) -> str:
    """Run a module of the benchmark in a process that frees its memory, and return its output.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return done.stdout


def close(workers: Sequence[Worker]) -> None:
    """End the workers."""
    for worker in workers:
        worker.__exit__(None, None, None)
