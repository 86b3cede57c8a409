"""Masking: stand-ins that a model copies, in place of what it must not word."""

from collections.abc import Callable
from dataclasses import dataclass

from server.text.segments import Segment


@dataclass(frozen=True, slots=True)
class Masked:
    """A segment as the model reads it; `stand_ins` are by span."""

    segment: Segment
    text: str
    stand_ins: tuple[str, ...] = ()


def mask(segment: Segment, writes: Callable[[str], bool]) -> Masked:
    """Put a stand-in that `writes` holds for in place of each span."""
    return Masked(segment, segment.text)
