"""The whole benchmark: sections in order, each within its budget, and what they come to."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import arrivals, libretranslate, offline, offline_nllb, served, special
from benchmarks.bench import Bench
from benchmarks.goals import goal_table
from benchmarks.report import environment, write
from model import BUNDLED

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ROOT / "build" / "bench"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the run.

    Attributes:
        budget_s: after which it begins no new turn.
        keys: of the goals that it decides.
    """

    name: str
    measure: Callable[[Bench, float], None]
    budget_s: float
    keys: tuple[str, ...] = ()


SECTIONS = (
    Section(
        "offline-base",
        offline.offline_base,
        170,
        ("base_1", "base_4", "base_16", "base_64", "base_beam_16"),
    ),
    Section("offline-bundled", offline.offline_bundled, 90),
    Section("offline-nllb", offline_nllb.offline_nllb, 75),
    Section("http", served.over_http, 110, ("http_1", "http_64", "own")),
    Section("http-base", served.over_http_base, 45, ("own_base",)),
    Section("open-loop", arrivals.open_loop, 150, ("batcher",)),
    Section(
        "libretranslate",
        libretranslate.beside_libretranslate,
        75,
        ("libretranslate", "libretranslate_tuned"),
    ),
    Section("latents", special.latents, 10, ("ttft",)),
    Section("streams", special.streams, 40, ("streams",)),
    Section("long-text", special.long_text, 40, ("short_p99",)),
    Section("start", special.start, 30, ("start",)),
)
EXTRA = (Section("nllb", special.nllb, 240),)  # only where it is asked for
NAMES = tuple(section.name for section in (*SECTIONS, *EXTRA))


def run(
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    out: Path | None = None,
    model: Path | None = None,
) -> int:
    """Measure, write files, and print the goals last.

    Args:
        quick: few turns and short windows, to see that everything works.
        only: names of sections; all but those for large machines by default.
        out: the folder of the results; by default one named by date under benchmarks/results.
        model: instead of the bundled checkpoint: one of Marian's that translates en to de.

    Returns:
        The exit code: 1 where nothing could be measured.

    Raises:
        ValueError: there is no such section or model.
    """
    for name in only:
        if name not in NAMES:
            raise ValueError(f"no section {name}; there are {', '.join(NAMES)}")
    if model is not None and not (model / "config.json").is_file():
        raise ValueError(f"{model} is not a checkpoint folder: it has no config.json")
    out = out or ROOT / "benchmarks" / "results" / time.strftime("%Y-%m-%d-%H%M")
    bench = Bench(CHECKPOINTS, (model or BUNDLED).resolve(), quick)
    began = time.monotonic()
    print(f"stele bench: results go to {out}", flush=True)  # noqa: T201
    _prepare(bench)
    chosen = [s for s in (*SECTIONS, *EXTRA) if s.name in only] if only else SECTIONS
    succeeded = [_measured(section, bench) for section in chosen]
    took = time.monotonic() - began
    results = bench.results
    table = goal_table(results.ratios, results.reasons, results.notes)
    write(out, environment(), results, table, took)
    print(f"\n{table}\n\n{took:.0f} s; more in {out}")  # noqa: T201
    return 0 if any(succeeded) else 1


def _prepare(bench: Bench) -> None:
    """Write the checkpoints that are not there, in a process that frees its memory."""
    began = time.monotonic()
    folder = bench.folder
    command = [sys.executable, "-m", "benchmarks.checkpoints", str(folder)]
    done = subprocess.run(
        [*command, "--bundled", str(bench.bundled)], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        bench.results.sections.setdefault("not measured", {})["checkpoints"] = reason
        bench.say(f"checkpoints are missing: {reason}")
    bench.results.sections["seconds"] = {"checkpoints": round(time.monotonic() - began, 1)}


def _measured(section: Section, bench: Bench) -> bool:
    """Run a section; a failure is kept as the reason, and the others go on."""
    budget = section.budget_s / 6 if bench.is_quick else section.budget_s
    print(f"{section.name} (about {budget:.0f} s)", flush=True)  # noqa: T201
    began = time.monotonic()
    try:
        section.measure(bench, began + budget)
    except Exception as error:  # whatever it is, the other sections are measured
        is_ours = isinstance(error, RuntimeError | ValueError | OSError)
        reason = str(error) if is_ours else repr(error)
        for key in section.keys:
            bench.results.reasons.setdefault(key, reason)
        bench.results.sections.setdefault("not measured", {})[section.name] = reason
        bench.say(f"not measured: {reason}")
        return False
    finally:
        took = round(time.monotonic() - began, 1)
        bench.results.sections["seconds"][section.name] = took
    return True
