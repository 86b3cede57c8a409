"""`python -m benchmarks.gpu.worker`: does one stage, in the process that `launcher` gave it."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import stages
from benchmarks.gpu.bare import without_public_names
from benchmarks.gpu.launcher import SKIPPED_CODE
from benchmarks.gpu.records import NoDevice, Records, Skipped

_MARGIN_S = 1.0  # between the end that a stage plans for and its being killed


def main(arguments: Sequence[str]) -> int:
    """Do the stage; returns the process's code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=stages.NAMES)
    parser.add_argument("--until", type=float, required=True, help="of the system's own clock")
    parser.add_argument("--device", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--bucket-min", type=int)
    parser.add_argument("--commit", default="")
    parser.add_argument("--replace", action="append", default=[])
    options = parser.parse_args(arguments)
    without_public_names()
    try:
        _run(options)
    except Skipped as reason:
        print(reason, file=sys.stderr)  # noqa: T201 - the launcher reads it
        return SKIPPED_CODE
    except NoDevice as error:
        print(error, file=sys.stderr)  # noqa: T201 - likewise
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    from benchmarks.gpu.context import Context, existing, prepared

    (stage,) = (stage for stage in stages.STAGES if stage.name == options.stage)
    replaced = dict(each.split("=") for each in options.replace)
    context = Context(
        device=existing(options.device),
        is_tiny=options.tiny,
        replaced=replaced,
        records=Records(options.out, stage.name, options.device != "cpu", replaced),
        until=options.until - _MARGIN_S,
        bucket_min=options.bucket_min,
        commit=options.commit,
    )
    module = importlib.import_module(f"benchmarks.gpu.{stage.module}")
    with prepared(context.device):
        module.run(*(context, stage.part) if stage.part else (context,))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
