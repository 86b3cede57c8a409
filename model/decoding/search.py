"""Hypotheses: how those of one target branch, end and agree; pure Python, no tensors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Alignment = tuple[float, ...]  # how much one target token looks at each source token


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One token of a hypothesis and, through `before`, all earlier ones; the root has none.

    Hypotheses that branched off each other share the nodes before the branch.
    """

    token: int = -1
    before: "Node | None" = field(default=None, repr=False)  # of any length
    depth: int = 0  # tokens up to here
    log_prob: float = 0.0
    alignment: Alignment = ()

    def after(self, depth: int) -> list["Node"]:
        """Return the nodes from `depth` + 1 tokens up to this one, in order."""
        path = []
        node: Node | None = self
        while node is not None and node.depth > depth:
            path.append(node)
            node = node.before
        return path[::-1]


def agreement(nodes: Iterable[Node]) -> Node:
    """Return the deepest node that is, or comes before, every one of `nodes`.

    Raises:
        ValueError: they have no beginning in common.
    """
    distinct = set(nodes)
    while len(distinct) > 1:
        depth = max(node.depth for node in distinct)
        if depth == 0:
            raise ValueError("these hypotheses belong to different targets")
        distinct = {
            node.before if node.depth == depth and node.before is not None else node
            for node in distinct
        }
    return distinct.pop()


class Candidate(NamedTuple):
    """A token that may continue a row."""

    token: int
    log_prob: float  # after filters: what a search adds up
    raw_log_prob: float = 0.0  # before filters: what is reported
    alignment: Alignment = ()


class Live(NamedTuple):
    """A hypothesis that goes on in the row of its index; `parent` is the row it comes from."""

    node: Node
    score: float  # sum of log-probabilities
    parent: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished target; `tokens` are without prefix and end.

    Attributes:
        score: what it was ranked by: the sum of its log-probabilities over its length to the
            power of the length penalty.
    """

    tokens: tuple[int, ...]
    score: float
    finish: Literal["stop", "length"]
    log_probs: tuple[float, ...]
    alignments: tuple[Alignment, ...]

    @classmethod
    def ending_in(cls, node: Node, score: float, finish: Literal["stop", "length"]) -> "Hypothesis":
        """Read a hypothesis off its last node."""
        path = node.after(0)
        return cls(
            tuple(each.token for each in path),
            score,
            finish,
            tuple(each.log_prob for each in path),
            tuple(each.alignment for each in path if each.alignment),
        )


class Search(Protocol):
    """Several rows that look for one target together; advancing makes a new one."""

    @property
    def width(self) -> int:
        """How many candidates `advance` needs of each row."""

    @property
    def live(self) -> Sequence[Live]:
        """The hypotheses that go on, one for each row."""

    def advance(self, candidates: Sequence[Sequence[Candidate]]) -> "Search":
        """Take the best continuations of each row, best first; returns the state after them."""

    @property
    def certain(self) -> Node:
        """The last node that every possible outcome shares."""

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """What was found, best first; empty until the search has ended."""
