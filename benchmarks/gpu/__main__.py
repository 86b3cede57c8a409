"""`python -m benchmarks.gpu`: runs the stages, each in a process of its own, and prints a table.

Needs this repository, PyTorch and NumPy; Triton where it is there. This process imports none of
them, so that nothing that happens to a device happens to it.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu import records, stages
from benchmarks.gpu.launcher import launch
from benchmarks.gpu.report import report
from benchmarks.gpu.stages import CALL_S, OPERATIONS, STAGES, Stage

PLAIN = "plain"


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for; returns the process's code."""
    parser = parser_of()
    options = parser.parse_args(arguments)
    if options.report:
        print(report(records.read(options.out)))  # noqa: T201 - the command's output
        return 0
    try:
        replaced = replacements(options.replace)
        chosen = _chosen(options)
    except ValueError as error:
        parser.error(str(error))
    options.out.parent.mkdir(parents=True, exist_ok=True)

    def command(stage: Stage, until: float) -> list[str]:
        failed = {} if stage.part else failed_checks(options.out)  # a check decides anew
        return _command(options, stage, until, failed | replaced)

    launch(chosen, command, options.out, options.seconds)
    lines = records.read(options.out)
    print(f"\n{report(lines)}\n\nfigures: {options.out}")  # noqa: T201
    bad = [line for line in lines if line["what"] == records.ENDED and _is_bad(line["value"])]
    return 1 if bad else 0


def parser_of() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--device", default="cuda", help="cuda, cuda:1, or cpu to prove that it runs"
    )
    parser.add_argument("--tiny", action="store_true", help="toy sizes, few repetitions")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), help="lines are appended")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--stages", nargs="+", metavar="STAGE", help=f"of {', '.join(stages.NAMES)}")
    some.add_argument(
        "--call", type=int, choices=(1, 2, 3), help="of the prepared order; 3 repeats"
    )
    some.add_argument("--report", action="store_true", help="print the table of --out again")
    parser.add_argument(
        "--replace",
        nargs="+",
        default=[],
        metavar="OPERATION=plain",
        help=f"use this form, plain or triton, of {', '.join(OPERATIONS)}",
    )
    parser.add_argument(
        "--bucket-min", type=int, metavar="ROWS", help="of the smallest captured step"
    )
    parser.add_argument("--commit", default="", help="what is measured, where git cannot say it")
    parser.add_argument("--seconds", type=float, default=CALL_S, help="for all stages together")
    return parser


def replacements(asked: Sequence[str]) -> dict[str, str]:
    """Return {operation: implementation}.

    Raises:
        ValueError: there is no such operation or implementation.
    """
    found = {}
    for each in asked:
        operation, _, implementation = each.partition("=")
        if operation not in OPERATIONS or implementation not in (PLAIN, "triton"):
            raise ValueError(
                f"--replace {each}: give one of {', '.join(OPERATIONS)} as NAME=plain or triton"
            )
        found[operation] = implementation
    return found


def failed_checks(path: Path) -> dict[str, str]:
    """Return the operations whose check was last seen to fail, to be replaced from there on."""
    checks = {stage.name: stage.part for stage in STAGES if stage.part}
    return {
        checks[line["stage"]]: PLAIN
        for line in records.read(path)
        if line["what"] == records.ENDED and line["stage"] in checks and _is_bad(line["value"])
    }


def _is_bad(status: str) -> bool:
    return status in (records.FAILED, records.TIMED_OUT)


def _chosen(options: argparse.Namespace) -> list[Stage]:
    if options.call:
        return stages.of_call(options.call, records.ended_well(records.read(options.out)))
    return stages.named(options.stages or stages.NAMES)


def _command(
    options: argparse.Namespace, stage: Stage, until: float, replaced: Mapping[str, str]
) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.gpu.worker", stage.name, "--until", f"{until:.3f}"]
    command += ["--device", options.device, "--out", str(options.out)]
    command += ["--tiny"] * options.tiny
    command += [f"--bucket-min={options.bucket_min}"] * (options.bucket_min is not None)
    command += [f"--commit={options.commit}"] * bool(options.commit)
    return command + [f"--replace={name}={twin}" for name, twin in sorted(replaced.items())]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
