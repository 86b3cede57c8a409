"""What is printed last: figures beside their limits, published figures and goals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.gpu.names import BART, NLLB, OPUS, T5
from benchmarks.gpu.predictions import STOPPED_CASE
from benchmarks.gpu.records import ENDED, OK

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is to reach.

    Attributes:
        figure: of the line: its `value`, `share` or `tokens_per_s`.
        published: what others reached, if anybody published it.
        unit: of the published figure and the bound.
    """

    what: str
    model: str
    rows: int
    figure: str
    kind: Literal["at least", "at most", "above"]
    bound: float
    case: str = ""
    published: str = ""
    unit: str = ""

    def verdict(self, value: float) -> str:
        """Return whether a figure reaches it."""
        reached = {
            "at least": value >= self.bound,
            "at most": value <= self.bound,
            "above": value > self.bound,
        }
        return "met" if reached[self.kind] else "missed"


def _share(model: str, share: float) -> Goal:
    return Goal("decode step", model, 64, "share", "at least", share)


def _batch(rows: int, newer: int, older: int) -> Goal:
    published = f"TensorRT-LLM {newer:,} / {older:,}"
    rest = ("tokens_per_s", "above", max(newer, older), STOPPED_CASE, published, "tokens/s")
    return Goal("whole batch", BART, rows, *rest)  # type: ignore[arg-type]


GOALS = (
    _batch(32, 10_662, 12_611),
    _batch(64, 16_209, 22_007),
    _batch(128, 23_518, 31_544),
    _share(BART, 0.55),
    _share(NLLB, 0.45),
    _share(T5, 0.30),
    _share(OPUS, 0.17),
    Goal("first token", T5, 1, "value", "at most", 2.0, published="4.69 ms on an A100", unit="ms"),
    Goal(
        "between tokens", T5, 1, "value", "at most", 0.35, published="0.63 ms on an A100", unit="ms"
    ),
    Goal("served / CTranslate2", OPUS, 64, "value", "at least", 2.0, unit="x"),
)
_TIMED = ("decode step", "whole batch", "first token", "between tokens", "served")
_TOLD = ("tokens equal", "equal bits", "no hidden wait")  # what precedes every figure of speed
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def report(lines: Sequence[Line]) -> str:
    """Return everything that is printed at the end."""
    parts = [_device(lines), _stages(lines), _equality(lines), table(lines), _predictions(lines)]
    return "\n\n".join(part for part in parts if part)


def _device(lines: Sequence[Line]) -> str:
    found = [line for line in lines if line["what"] == "device"]
    if not found:
        return "no device is recorded"
    line = found[0]
    told = f"{line['value']}, torch {line['torch']}, triton {line['triton'] or 'none'}"
    told += f", driver {line['driver'] or 'none'}, commit {line['commit'] or 'unknown'}"
    told += f"\nplain forms of: {', '.join(line['plain']) or 'no operation'}"
    toy = "\ntoy sizes: no figure below means anything, only that it could be measured"
    return told + toy * bool(line["is_tiny"])


def _stages(lines: Sequence[Line]) -> str:
    """Name the stages that did not end well, and why."""
    ended = [line for line in lines if line["what"] == ENDED]
    well = [line["stage"] for line in ended if line["value"] == OK]
    rest = [
        f"{line['stage']}: {line['value']} after {line['seconds']:g} s {line.get('reason', '')}"
        for line in ended
        if line["value"] != OK
    ]
    told = [f"ended well: {', '.join(well) or 'no stage'}", *map(str.rstrip, rest)]
    by_stage = {line["stage"]: line["replaced"] for line in lines if "replaced" in line}
    told += [f"{stage}: with {replaced}" for stage, replaced in by_stage.items()]
    return "\n".join(told)


def _equality(lines: Sequence[Line]) -> str:
    """Return what is equal to what: nothing below counts without it."""
    rows = [
        f"| {line['what']} | {_named(line)} | {_shown(line)} |"
        for line in lines
        if line["what"] in _TOLD
    ]
    return "\n".join(["| equality | of | |", "|---|---|--:|", *rows]) if rows else ""


def _shown(line: Line) -> str:
    if line["unit"] == "of rows":
        near = line.get("equal_to_float32", {}).items()
        told = ", ".join(f"{machine} {share:.1%}" for machine, share in near)
        return f"{line['value']:.1%}" + (f" (of float32's: {told})" if told else "")
    return f"{line['value']} {line['unit']}".rstrip()


def _named(line: Line) -> str:
    rows = f"{line['rows']} rows" if "rows" in line else ""
    return ", ".join(part for part in (line.get("model"), rows, line.get("case")) if part)


def table(lines: Sequence[Line]) -> str:
    """Return the table: model and batch by tokens/s, milliseconds, share, published, goal.

    Toy sizes have no goals.
    """
    is_toy = any(line["what"] == "device" and line["is_tiny"] for line in lines)
    goals = () if is_toy else GOALS
    heads = ("measured", "model", "batch", "tokens/s", "ms", "share of limit", "published", "goal")
    rows = [_row(line, goals) for line in lines if line["what"] in _TIMED]
    rows += [_missing(goal) for goal in goals if _of(goal, lines) is None]
    rows += [_ratio(line, goals) for line in lines if line["what"] == "served / CTranslate2"]
    return "\n".join(_markdown([heads, *rows]))


def _row(line: Line, goals: Sequence[Goal]) -> tuple[str, ...]:
    case = line.get("case", "")
    what = line["what"] + (f", {case}" if case else "")
    rate, share, value = line.get("tokens_per_s"), line.get("share"), line["value"]
    return (
        what,
        line.get("model", ""),
        str(line.get("rows", "")),
        f"{rate:,.0f}" if rate else "",
        "" if value is None else f"{value * _MS[line['unit']]:.3f}",
        f"{share:.0%}" if share else "",
        *_against(line, goals),
    )


def _ratio(line: Line, goals: Sequence[Goal]) -> tuple[str, ...]:
    value = line["value"]
    shown = line["what"] if value is None else f"{line['what']}: {value:.2f}"
    return (
        shown,
        line.get("model", ""),
        str(line.get("rows", "")),
        "",
        "",
        "",
        *_against(line, goals),
    )


def _against(line: Line, goals: Sequence[Goal]) -> tuple[str, str]:
    """Return what others published of a figure, and whether its goal is reached."""
    goal = next((each for each in goals if _is_of(each, line)), None)
    if goal is None:
        return "", ""
    value = line.get(goal.figure)
    verdict = "not measured" if value is None else goal.verdict(value)
    return goal.published, f"{_bound(goal)}: {verdict}"


def _missing(goal: Goal) -> tuple[str, ...]:
    what = goal.what + (f", {goal.case}" if goal.case else "")
    rest = (goal.model, str(goal.rows), "", "", "", goal.published)
    return (what, *rest, f"{_bound(goal)}: not measured")


def _bound(goal: Goal) -> str:
    if goal.figure == "share":
        return f"{goal.kind} {goal.bound:.0%}"
    return f"{goal.kind} {goal.bound:,.10g} {goal.unit}".rstrip()


def _of(goal: Goal, lines: Iterable[Line]) -> Line | None:
    return next((line for line in lines if _is_of(goal, line)), None)


def _is_of(goal: Goal, line: Line) -> bool:
    named = (line["what"], line.get("model", ""), line.get("rows", 0), line.get("case", ""))
    return named == (goal.what, goal.model, goal.rows, goal.case)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    heads, *rest = [f"| {' | '.join(row)} |" for row in rows]
    rule = "|---|---|--:|--:|--:|--:|---|---|"
    return [heads, rule, *rest]


def _predictions(lines: Sequence[Line]) -> str:
    """Name the figures outside of what was predicted, the worst first."""
    compared = [line for line in lines if "predicted" in line]
    if not compared or any(line["what"] == "device" and line["is_tiny"] for line in lines):
        return ""
    missed = [line for line in compared if not line["is_within_prediction"]]
    missed.sort(key=lambda line: -abs(line["prediction_error"]))
    told = [
        f"  {line['what']} ({_named(line)}): {line['value']:.4g} {line['unit']}, predicted "
        f"{line['predicted'][1]:g}, error {line['prediction_error']:+.0%}"
        for line in missed[:12]
    ]
    within = len(compared) - len(missed)
    return "\n".join([f"{within} of {len(compared)} figures within their prediction", *told])
