"""Projection: spans and tags of a source put into its target, each exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.text.masking import Masked
from server.text.segments import Span


@dataclass(frozen=True, slots=True)
class Restored:
    """A target with everything in it; `misplaced` spans are where attention says, at best."""

    text: str
    misplaced: tuple[Span, ...] = ()


def restore(
    masked: Masked,
    target: Sequence[str],
    source: Sequence[str],
    weights: Sequence[Sequence[float]],
) -> Restored:
    """Put the spans' texts and the tags of `masked` into the target that `target` joins to."""
    return Restored("".join(target))
