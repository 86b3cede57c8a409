"""One target's progress through the engine; owned by the engine's thread alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model import DecodingOptions, Hypothesis


class Finish(Enum):
    """Why a generation ended. Every accepted generation ends exactly once."""

    STOP = "stop"  # the model said so
    LENGTH = "length"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(slots=True, eq=False)
class Generation:
    """Source token ids in, target token ids out.

    `group` is what arrived together (one HTTP request): groups take turns, so that a long
    document does not keep a short text waiting. Times are seconds on the engine's clock.
    """

    id: int
    group: int
    source: tuple[int, ...]
    options: DecodingOptions
    max_new_tokens: int
    deadline: float
    accepted_at: float
    streams: bool = True  # others want each token, not only the end
    previews: bool = False  # and what may come next
    admitted_at: float | None = None
    first_token_at: float | None = None
    slots: tuple[int, ...] = ()  # while it runs; the first names it
    target: list[int] = field(default_factory=list)  # what is certain
    scores: list[float] = field(default_factory=list)
    alignments: list[tuple[float, ...]] = field(default_factory=list)
    preview: tuple[int, ...] = ()  # what may come next, and may not
    hypotheses: tuple[Hypothesis, ...] = ()  # of a search that has ended
    finish: Finish | None = None
    published: int = 0  # tokens of `target` that others have seen
    due_at: float = -math.inf  # when others want to see more of a stream
