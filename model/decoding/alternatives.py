"""Alternatives: targets of one source that differ in their first token and go on greedily."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.decoding.options import DecodingOptions
from model.decoding.search import Candidate, Hypothesis, Live, Node


@dataclass(frozen=True, slots=True)
class Alternatives:
    """One row for each of the likeliest first tokens, as CTranslate2's `return_alternatives`.

    They end in the order of their first tokens; a row that has ended idles until the last one has.
    """

    options: DecodingOptions
    eos: int
    live: tuple[Live, ...]
    certain: Node  # the root: the first alternative is not known to be wanted before all ended
    ended: tuple[Hypothesis | None, ...] = ()  # by row

    @classmethod
    def begin(cls, options: DecodingOptions, eos: int) -> "Alternatives":
        """Start from the target's prefix, in the first row."""
        root = Node()
        return cls(options, eos, (Live(root, 0.0, 0),), root, (None,) * options.alternatives)

    @property
    def width(self) -> int:
        """How many candidates are needed of each row: one of the first may be the end."""
        return self.options.alternatives + 1 if self._is_beginning else 1

    def advance(self, candidates: Sequence[Sequence[Candidate]]) -> "Alternatives":
        """Branch off at the first token, then continue each by its likeliest."""
        if self._is_beginning:
            chosen = [(0, candidate) for candidate in self._first(candidates[0])]
        else:
            chosen = [(row, candidates[row][0]) for row in range(len(self.live))]
        live, ended = [], list(self.ended)
        for row, (parent, candidate) in enumerate(chosen):
            before = self.live[parent]
            next_ = self._continued(before, candidate, parent)
            live.append(next_)
            if ended[row] is None:
                ended[row] = self._end(before, next_)
        return replace(self, live=tuple(live), ended=tuple(ended))

    @property
    def _is_beginning(self) -> bool:
        return self.live[0].node is self.certain

    def _first(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the first tokens to branch off with.

        An empty target is no alternative, unless it is all there is: where the end is forced.
        """
        possible = [c for c in candidates if c.token != self.eos and c.log_prob > float("-inf")]
        return possible[: self.options.alternatives] or [*candidates[:1]]

    def _continued(self, before: Live, candidate: Candidate, parent: int) -> Live:
        node = Node(
            candidate.token,
            before.node,
            before.node.depth + 1,
            candidate.raw_log_prob,
            candidate.alignment,
        )
        return Live(node, before.score + candidate.log_prob, parent)

    def _end(self, before: Live, after: Live) -> Hypothesis | None:
        is_last = after.node.depth >= self.options.max_new_tokens
        score = after.score / after.node.depth**self.options.length_penalty
        if after.node.token == self.eos:
            was_forced = is_last and self.options.forced_eos is not None
            return Hypothesis.ending_in(before.node, score, "length" if was_forced else "stop")
        return Hypothesis.ending_in(after.node, score, "length") if is_last else None

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """All, the likeliest first token first; empty until the last has ended."""
        found = tuple(hypothesis for hypothesis in self.ended if hypothesis is not None)
        return found if len(found) == len(self.live) else ()
