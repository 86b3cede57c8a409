"""Phrases: how much a target holds already of the token sequences that it must contain."""

from collections.abc import Sequence
from typing import NamedTuple


class Progress(NamedTuple):
    """What one hypothesis has come to.

    Attributes:
        node: the longest end of its tokens that begins a phrase, as `Phrases` numbers it, while
            any is left.
        left: by phrase of different ones, how often it must still occur.
        needed: tokens that are enough to fulfil all that is left.
    """

    node: int
    left: tuple[int, ...]
    needed: int


class Phrases:
    """An automaton that reads a target token by token (Aho and Corasick 1975).

    So a phrase that is begun and broken off falls back to the longest end of it that still begins
    one, and phrases may overlap each other and themselves. One that is given twice must occur
    twice.
    """

    def __init__(self, phrases: Sequence[Sequence[int]]) -> None:
        """Take phrases that are not empty."""
        self._given = [tuple(phrase) for phrase in phrases]
        self._different = [*dict.fromkeys(self._given)]
        self._children: list[dict[int, int]] = [{}]
        self._begun: list[list[tuple[int, int]]] = [[]]  # phrase and how many of its tokens
        self._ended: list[list[int]] = [[]]  # phrases
        for index, phrase in enumerate(self._different):
            self._add(index, phrase)
        self._fallback = [0] * len(self._children)
        self._link()

    def _add(self, index: int, phrase: tuple[int, ...]) -> None:
        node = 0
        for length, token in enumerate(phrase, start=1):
            if token not in self._children[node]:
                self._children[node][token] = len(self._children)
                self._children.append({})
                self._begun.append([])
                self._ended.append([])
            node = self._children[node][token]
            if length < len(phrase):
                self._begun[node].append((index, length))
        self._ended[node].append(index)

    def _link(self) -> None:
        """Let each node fall back to the longest of its ends, and hold what that one holds."""
        waiting = [*self._children[0].values()]
        for node in waiting:  # grows: by depth
            below = self._fallback[node]
            self._begun[node] += self._begun[below]
            self._ended[node] += self._ended[below]
            for token, child in self._children[node].items():
                self._fallback[child] = self._next(below, token)
                waiting.append(child)

    def _next(self, node: int, token: int) -> int:
        while node and token not in self._children[node]:
            node = self._fallback[node]
        return self._children[node].get(token, 0)

    def begin(self) -> Progress:
        """Return the progress of an empty target."""
        left = tuple(self._given.count(phrase) for phrase in self._different)
        return Progress(0, left, sum(map(len, self._given)))

    def after(self, progress: Progress, token: int) -> Progress:
        """Return the progress of a hypothesis with one token more."""
        if not progress.needed:
            return progress
        node = self._next(progress.node, token)
        if not node and not progress.node:
            return progress
        left = progress.left
        for phrase in self._ended[node]:
            if left[phrase]:
                left = (*left[:phrase], left[phrase] - 1, *left[phrase + 1 :])
        return Progress(node, left, self._needed(node, left))

    def _needed(self, node: int, left: Sequence[int]) -> int:
        pairs = zip(left, self._different, strict=True)
        begun = max((length for phrase, length in self._begun[node] if left[phrase]), default=0)
        return sum(count * len(phrase) for count, phrase in pairs) - begun

    def advancing(self, progress: Progress) -> tuple[int, ...]:
        """Return the tokens that begin or continue a phrase that is left, continuing ones first."""
        left = progress.left
        begun = [
            self._different[phrase][length]
            for phrase, length in self._begun[progress.node]
            if left[phrase]
        ]
        first = [phrase[0] for count, phrase in zip(left, self._different, strict=True) if count]
        return tuple(dict.fromkeys([*begun, *first]))

    def missing(self, progress: Progress) -> tuple[int, ...]:
        """Return which phrases are left, as indices of those given; of equal ones the last."""
        left = dict(zip(self._different, progress.left, strict=True))
        found = []
        for index in reversed(range(len(self._given))):
            if left[self._given[index]]:
                left[self._given[index]] -= 1
                found.append(index)
        return tuple(reversed(found))
