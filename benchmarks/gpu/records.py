"""Figures as lines of JSON, each written when it is known; with what was predicted of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.predictions import PREDICTED

FAILED, OK, SKIPPED, TIMED_OUT = "failed", "ok", "skipped", "timed out"
ENDED = "ended"  # of a stage


class NoDevice(Exception):
    """The device asked for is not there; says what is."""


class Skipped(Exception):
    """A stage, or a part of it, that cannot be measured here; says why."""


@dataclass(frozen=True, slots=True)
class Records:
    """Appends to a file; a line that is there survives whatever happens next."""

    path: Path
    stage: str
    are_compared: bool = True  # with what was predicted
    replaced: Mapping[str, str] = field(default_factory=dict)  # what figures came about with

    def add(
        self,
        what: str,
        value: float | str | None,
        unit: str = "",
        *,
        model: str = "",
        rows: int = 0,
        case: str = "",
        **details: Any,
    ) -> None:
        """Write a figure and print it.

        Args:
            what, model, rows, case: name the figure; a later one of the same name replaces it.
        """
        line: dict[str, Any] = {"stage": self.stage, "what": what}
        named = {"model": model, "rows": rows, "case": case}
        line |= {key: named_as for key, named_as in named.items() if named_as}
        line |= {"value": value, "unit": unit} | details
        line |= {"replaced": dict(self.replaced)} if self.replaced else {}
        line |= compared(line) if self.are_compared else {}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(described(line), flush=True)  # noqa: T201 - the command's output


def compared(line: dict[str, Any]) -> dict[str, Any]:
    """Return what was predicted of a figure and how far off that was, if anything was."""
    predicted = PREDICTED.get(name_of(line)[1:])
    if predicted is None or not isinstance(line["value"], int | float):
        return {}
    low, central, high = predicted
    return {
        "predicted": [low, central, high],
        "prediction_error": line["value"] / central - 1,
        "is_within_prediction": low <= line["value"] <= high,
    }


def name_of(line: dict[str, Any]) -> tuple[str, str, str, int, str]:
    """Return what names a figure: stage, what, model, rows, case."""
    return (
        line["stage"],
        line["what"],
        line.get("model", ""),
        line.get("rows", 0),
        line.get("case", ""),
    )


def described(line: dict[str, Any]) -> str:
    """Return a line of JSON as people read it."""
    stage, what, model, rows, case = name_of(line)
    parts = [part for part in (model, f"{rows} rows" if rows else "", case) if part]
    value = line["value"]
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    told = f"{stage}: {what}{f' ({chr(44).join(parts)})' if parts else ''}: {shown} {line['unit']}"
    if "predicted" in line:
        low, _, high = line["predicted"]
        told += f" (predicted {low:g} to {high:g})"
    if line.get("share") is not None:
        told += f", {line['share']:.0%} of the limit"
    return told.rstrip()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the last line of each name, in the order of their first appearance."""
    found: dict[tuple[str, str, str, int, str], dict[str, Any]] = {}
    for line in _lines(path):
        found[name_of(line)] = line
    return list(found.values())


def ended_well(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of stages that last ended well, or were skipped for a reason."""
    return [
        line["stage"] for line in lines if line["what"] == ENDED and line["value"] in (OK, SKIPPED)
    ]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                continue  # cut off while it was written
