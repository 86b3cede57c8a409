"""Pacing: for how long the engine goes on before it turns to what happens around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from server.generation import Generation

if TYPE_CHECKING:
    from model import Step

MOST_STEPS = 8
_LONGEST_S = 0.02  # of several steps together
_UNSEEN_S = 0.002  # the same, where a stream is told every token, or somebody waits for a slot
_MOST_WAITED = 3  # steps together then: a slot that gets free stands empty for two at most
_FEW = 4  # streams that are told every token
_EVENT_S = 1e-4  # of the event loop, to tell one stream what is new and to write it out
_SHARE = 0.02  # of the event loop's time that telling many streams may take


def steps_at_once(
    step_s: float, left_s: float, streams: int, *, is_awaited: bool, is_full: bool = False
) -> int:
    """Return how many tokens of each row to decode in one call.

    Several cost less than one call each, but only one is decoded where somebody waits for what
    follows the step, and none that the first deadline, or an interruption, would be late for.

    Args:
        step_s: what a step took lately.
        left_s: until the first deadline.
        streams: how many run; many are told seldom anyway.
        is_awaited: somebody waits for the device, or for a first token.
        is_full: somebody waits for a slot.
    """
    if is_awaited or left_s < 2 * _LONGEST_S:
        return 1
    longest_s = _UNSEEN_S if is_full or 0 < streams <= _FEW else _LONGEST_S
    most = _MOST_WAITED if is_full else MOST_STEPS
    return most if step_s * most <= longest_s else max(1, int(longest_s / step_s))


def wants_first(running: Iterable[Generation], streams: int) -> bool:
    """Return whether one of few streams has no token yet: its first comes by itself."""
    return 0 < streams <= _FEW and any(
        generation.streams and generation.first_token_at is None for generation in running
    )


def period_s(streams: int) -> float:
    """Return the least time between two deltas of one stream while so many run.

    A few are told every token. Of more, each is told as seldom as keeps the cost of telling all of
    them within a small share of the event loop's time: what has piled up makes one delta.
    """
    return 0.0 if streams <= _FEW else streams * _EVENT_S / _SHARE


def _next_turn(now: float, period: float) -> float:
    """Return when streams are next told together: waking the event loop once is cheaper."""
    return now if period == 0 else (math.floor(now / period) + 1) * period


class Pacer:
    """Keeps back what is new about a stream until its next delta is due."""

    def __init__(self) -> None:
        self._behind: dict[Generation, None] = {}

    def due(self, changed: Iterable[Generation], streams: int, now: float) -> list[Generation]:
        """Return those of `changed`, and of what was kept back, that are to be published now.

        The first news and the end of a generation are always due; what does not stream has no
        other news. What is kept back comes with the stream's next delta, or a later call's.

        Args:
            streams: how many run.
        """
        period = period_s(streams)
        candidates = self._behind | dict.fromkeys(changed)
        self._behind = {}
        found = []
        for generation in candidates:
            if generation.finish is not None:
                found.append(generation)
            elif generation.streams and (period == 0 or generation.due_at <= now):
                generation.due_at = _next_turn(now, period)
                found.append(generation)
            elif generation.streams:
                self._behind[generation] = None
        return found


def rows_by_step(rows: Mapping[int, int], steps: Sequence[tuple[int, Step]]) -> list[int]:
    """Return how many rows each step of a launch had.

    Those whose source is still being encoded take none.

    Args:
        rows: by name, of all that were launched.
    """
    taken = [
        (rows[name], len(step.tokens) if rows[name] == 1 else step.steps) for name, step in steps
    ]
    later = range(1, max((count for _, count in taken), default=1))
    awaited = sum(rows[name] for name, step in steps if step.is_awaited)
    return [
        sum(rows.values()) - awaited,
        *(sum(size for size, count in taken if count > place) for place in later),
    ]
