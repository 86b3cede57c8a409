"""Nesting: which end tag belongs to which start tag."""

from collections import Counter
from collections.abc import Sequence


class Nesting:
    """Start tags that are still open, by position and name."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []
        self._names: Counter[str] = Counter()

    @property
    def innermost(self) -> str:
        """The name of the tag opened last; empty if none is open."""
        return self._open[-1][1] if self._open else ""

    def open(self, position: int, name: str) -> None:
        """Take a start tag."""
        self._open.append((position, name))
        self._names[name] += 1

    def close(self, name: str) -> list[int]:
        """Take an end tag; returns the starts that end there, their own one last, or none."""
        ended: list[int] = []
        if self._names[name]:
            while self.innermost != name:
                ended.append(self.end())
            ended.append(self.end())
        return ended

    def end(self) -> int:
        """End the innermost element; returns where it started."""
        position, name = self._open.pop()
        self._names[name] -= 1
        return position


def pairs(tags: Sequence[tuple[str, str]]) -> dict[int, int]:
    """Return {position of a start tag: position of its end tag}, for those that have both.

    Args:
        tags: (kind, name) of each, those that are neither open nor close among them.
    """
    nesting, found = Nesting(), {}
    for position, (kind, name) in enumerate(tags):
        if kind == "open":
            nesting.open(position, name)
        elif kind == "close" and (ended := nesting.close(name)):
            found[ended[-1]] = position
    return found
