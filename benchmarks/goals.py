"""The goals of speed on a CPU, and whether measurements meet them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import Paired


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a ratio.

    Attributes:
        is_least: whether the ratio must reach the bound; else it must not exceed it.
    """

    key: str
    text: str
    bound: float
    is_least: bool = True

    def is_met(self, ratio: float) -> bool:
        """Whether a measured ratio is within the bound."""
        return ratio >= self.bound if self.is_least else ratio <= self.bound

    @property
    def sign(self) -> str:
        """The bound as people write it."""
        return f"{'≥' if self.is_least else '≤'} {self.bound:g}"


def at_most(key: str, text: str, bound: float) -> Goal:
    """Return a goal that a ratio must not exceed."""
    return Goal(key, text, bound, is_least=False)


BASE = "whole translations, Marian base, int8, x CTranslate2 int8"
OWN = "served, 16 texts a request, saturated, x the engine's own"
LIBRETRANSLATE = "requests/s at concurrency 16, beam 4, x LibreTranslate"
GOALS = (
    Goal("base_1", f"{BASE}: batch 1", 2),
    Goal("base_4", f"{BASE}: batch 4", 2),
    Goal("base_16", f"{BASE}: batch 16", 2),
    Goal("base_64", f"{BASE}: batch 64", 1.5),
    Goal("base_beam_16", f"{BASE}: beam 4, batch 16", 1.5),
    Goal("http_1", "bundled model over HTTP, batch 1, x CTranslate2 int8 called directly", 0.5),
    Goal("http_64", "bundled model over HTTP, batch 64, x CTranslate2 int8 called directly", 1),
    Goal("own_base", f"{OWN} (Marian base)", 0.9),
    Goal("own", f"{OWN} (bundled)", 0.9),
    Goal("libretranslate", f"{LIBRETRANSLATE} as it comes", 3),
    Goal("libretranslate_tuned", f"{LIBRETRANSLATE} with its threads tuned", 3),
    Goal("batcher", "goodput at equal p99, mixed lengths, x CTranslate2 behind a batcher", 1.5),
    at_most("ttft", "TTFT, 200 source tokens, Marian base, latent hit / miss", 0.5),
    at_most("streams", "throughput lost by streaming to 64 clients, Marian base", 0.05),
    at_most("short_p99", "p99 of short texts beside one of maximum length / alone", 2),
    at_most("start", "start to ready / (1.5 x importing torch, fastapi, uvicorn + 1 s)", 1),
)


def verdict(goal: Goal, measured: Paired | None) -> str:
    """Return met, missed, or that there is no measurement."""
    if measured is None:
        return "not measured"
    return "met" if goal.is_met(measured.median) else "missed"


def goal_table(
    measured: Mapping[str, Paired],
    reasons: Mapping[str, str],
    notes: Mapping[str, str],
    goals: Sequence[Goal] = GOALS,
) -> str:
    """Return the goals with what was measured, in Markdown.

    Args:
        measured: by the goals' keys.
        reasons: why a goal's ratio was not measured.
        notes: what to know beside a figure.
    """
    lines = [
        "| | goal | measured | lowest - highest (turns) | |",
        "|---|--:|--:|--:|---|",
    ]
    for goal in goals:
        found, note = measured.get(goal.key), notes.get(goal.key)
        text = goal.text + (f" ({note})" if note else "")
        if found is None:
            reason = reasons.get(goal.key, "its section was not asked for")
            lines.append(f"| {text} | {goal.sign} | - | - | not measured: {reason} |")
            continue
        lines.append(
            f"| {text} | {goal.sign} | {found.median:.2f} "
            f"| {found.low:.2f} - {found.high:.2f} ({found.turns}) | {verdict(goal, found)} |"
        )
    return "\n".join(lines)
