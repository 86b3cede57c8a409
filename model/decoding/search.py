"""Hypotheses: how those of one target go on and end; pure Python, no tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Alignment = tuple[float, ...]  # how much one target token looks at each source token


class Candidates(NamedTuple):
    """Tokens that may continue a row, best first.

    Attributes:
        tokens: their ids.
        log_probs: after filters: what a search adds up.
        raw_log_probs: before filters: what is reported; None where filters change none of them.
        alignment: what the row looks at; empty where it was not asked for.
    """

    tokens: Sequence[int]
    log_probs: Sequence[float]
    raw_log_probs: Sequence[float] | None = None
    alignment: Alignment = ()


class Live(NamedTuple):
    """A hypothesis that goes on in the row of its index; `parent` is the row it comes from.

    Attributes:
        tokens: all after the prefix; tuples, since hypotheses that branch share their past.
        score: sum of log-probabilities.
        log_probs, alignments: by token; empty where they were not asked for.
    """

    tokens: tuple[int, ...] = ()
    score: float = 0.0
    parent: int = 0
    log_probs: tuple[float, ...] = ()
    alignments: tuple[Alignment, ...] = ()

    def then(self, row: int, found: Candidates, index: int, score: float, reports: bool) -> "Live":
        """Return this hypothesis, of `row`, continued by one of its candidates.

        Args:
            score: the sum with the candidate's log-probability.
            reports: whether each token's log-probability is kept.
        """
        tokens = (*self.tokens, found.tokens[index])
        if not reports and not found.alignment:
            return Live(tokens, score, row)
        log_probs, alignments = self.log_probs, self.alignments
        if reports:
            raw = found.log_probs if found.raw_log_probs is None else found.raw_log_probs
            log_probs = (*log_probs, raw[index])
        if found.alignment:
            alignments = (*alignments, found.alignment)
        return Live(tokens, score, row, log_probs, alignments)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished target; `tokens` are without prefix and end.

    Attributes:
        score: what it was ranked by: the sum of its log-probabilities over its length to the
            power of the length penalty.
        log_probs: by token; 0 where they were not asked for.
        missing: which of the options' phrases it lacks, by index; empty where it has all.
    """

    tokens: tuple[int, ...]
    score: float
    finish: Literal["stop", "length"]
    log_probs: tuple[float, ...]
    alignments: tuple[Alignment, ...]
    missing: tuple[int, ...] = ()

    @classmethod
    def ending_in(
        cls,
        last: Live,
        score: float,
        finish: Literal["stop", "length"],
        missing: tuple[int, ...] = (),
    ) -> "Hypothesis":
        """End a hypothesis with its newest token, which is not the end token."""
        log_probs = last.log_probs or (0.0,) * len(last.tokens)
        return cls(last.tokens, score, finish, log_probs, last.alignments, missing)


class Search(Protocol):
    """Several rows that look for one target together; advancing makes a new one."""

    @property
    def width(self) -> int:
        """How many candidates `advance` needs of each row."""

    @property
    def live(self) -> Sequence[Live]:
        """The hypotheses that go on, one for each row."""

    @property
    def asked(self) -> Sequence[tuple[int, ...]]:
        """By live hypothesis the tokens that must be among its candidates; empty for none."""

    def advance(self, candidates: Sequence[Candidates]) -> "Search":
        """Take the best continuations of each row, as many of each; returns the state after."""

    @property
    def certain(self) -> int:
        """How many first tokens every possible outcome shares, while the search goes on."""

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """What was found, best first; empty until the search has ended."""
