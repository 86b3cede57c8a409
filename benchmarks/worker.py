"""`python -m benchmarks.worker`: one engine in a process of its own, asked line by line in JSON.

Its memory is then its own, and so are its threads.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from benchmarks.direct import LONGEST, Direct, Work
from benchmarks.memory import Memory, memory_of

# As `stele serve` sets it, so that the engine called directly has the same threads.
_ENVIRONMENT = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "60000")}


class WorkerFailed(RuntimeError):
    """An engine could not be started, or ended; the message is its last line."""


class Worker:
    """The asking side; leaving the `with` ends the process."""

    def __init__(self, engine: str, folder: Path, **options: str | int) -> None:
        """Start loading; `wait` for it, so that several load at the same time.

        Args:
            engine: stele, ctranslate2 or transformers.
            options: of the worker's command line.
        """
        command = [sys.executable, "-m", "benchmarks.worker", engine, str(folder)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **_ENVIRONMENT},
        )
        self.version = ""
        self.loaded = Memory(0.0, 0.0)

    def wait(self) -> Self:
        """Wait until the engine is loaded; raises WorkerFailed."""
        self.version = self._receive()["version"]
        self.loaded = self.memory()
        return self

    def translate(self, work: Work) -> tuple[float, list[list[int]]]:
        """Return the seconds that it took, and the targets."""
        job = {name: getattr(work, name) for name in Work.__slots__}
        answer = self._ask({"work": job})
        return answer["seconds"], answer["targets"]

    def seconds(self, work: Work) -> float:
        """Translate, and return only how long it took."""
        return self.translate(work)[0]

    def translate_texts(self, texts: list[str], target: str) -> tuple[float, list[str]]:
        """Return the seconds that it took, and the translations."""
        answer = self._ask({"texts": texts, "target": target})
        return answer["seconds"], answer["targets"]

    def texts_per_s(
        self,
        texts: list[str],
        target: str,
        warm_s: float,
        seconds: float,
        longest: int = LONGEST,
    ) -> float:
        """Return how many texts end in a second while all rows are busy; Stele only."""
        job = {"texts": texts, "target": target, "windows": [warm_s, seconds, longest]}
        rate: float = self._ask(job)["per_s"]
        if not rate:
            raise WorkerFailed(f"no text ended within {seconds:g} s of all rows busy")
        return rate

    def memory(self) -> Memory:
        """Return what the process holds, and held at most."""
        return memory_of(self._process.pid)

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer says why
            print(json.dumps(job), file=self._process.stdin, flush=True)
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(_last_line(self._process.stderr))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _last_line(stream: IO[str] | None) -> str:
    lines = stream.read().strip().splitlines() if stream is not None else []
    return lines[-1] if lines else "it ended without a word"


def _open(options: argparse.Namespace) -> Direct:
    """Import and load the engine that is asked for."""
    if options.engine == "stele":
        from benchmarks.stele_direct import SteleDirect

        return SteleDirect(options.folder, options.precision, options.rows)
    if options.engine == "ctranslate2":
        from benchmarks.peers.ctranslate2_direct import CTranslate2Direct

        return CTranslate2Direct(options.folder, options.precision, options.intra, options.inter)
    from benchmarks.peers.transformers_direct import TransformersDirect

    return TransformersDirect(options.folder)


def _answer(engine: Direct, job: dict[str, Any]) -> dict[str, Any]:
    if "windows" in job:
        measured: Any = engine  # Stele's
        return {"per_s": measured.texts_per_s(job["texts"], job["target"], *job["windows"])}
    began = time.perf_counter()
    targets: list[Any]
    if "work" in job:
        targets = engine.translate(Work(**job["work"]))
    else:
        targets = engine.translate_texts(job["texts"], job["target"])
    return {"seconds": time.perf_counter() - began, "targets": targets}


def main() -> None:
    """Load, then answer each line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.add_argument("engine", choices=["stele", "ctranslate2", "transformers"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--intra", type=int, default=1)
    parser.add_argument("--inter", type=int, default=1)
    options = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    engine = _open(options)
    print(json.dumps({"version": engine.version}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(engine, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
