"""Alternatives: targets of one source that differ in their first token and go on greedily."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.decoding.options import DecodingOptions
from model.decoding.search import Candidates, Hypothesis, Live


@dataclass(frozen=True, slots=True)
class Alternatives:
    """One row for each of the likeliest first tokens, as CTranslate2's `return_alternatives`.

    They end in the order of their first tokens; a row that has ended idles until the last one has.
    """

    options: DecodingOptions
    eos: int
    live: tuple[Live, ...]
    ended: tuple[Hypothesis | None, ...] = ()  # by row
    certain: int = 0  # the first alternative is not known to be wanted before all have ended

    @classmethod
    def begin(cls, options: DecodingOptions, eos: int) -> "Alternatives":
        """Start from the target's prefix, in the first row."""
        return cls(options, eos, (Live(),), (None,) * options.alternatives)

    @property
    def width(self) -> int:
        """How many candidates are needed of each row: one of the first may be the end."""
        return 1 if self.live[0].tokens else self.options.alternatives + 1

    @property
    def asked(self) -> Sequence[tuple[int, ...]]:
        """No tokens by name."""
        return ()

    def advance(self, candidates: Sequence[Candidates]) -> "Alternatives":
        """Branch off at the first token, then continue each by its likeliest."""
        if self.live[0].tokens:
            chosen = [(row, 0) for row in range(len(self.live))]
        else:
            chosen = [(0, index) for index in self._first(candidates[0])]
        live, ended = [], list(self.ended)
        for row, (parent, index) in enumerate(chosen):
            before, found = self.live[parent], candidates[parent]
            if ended[row] is not None:  # idles
                live.append(before._replace(parent=parent))
                continue
            score = before.score + found.log_probs[index]
            next_ = before.then(parent, found, index, score, self.options.wants_scores)
            live.append(next_)
            ended[row] = self._end(before, next_)
        return Alternatives(self.options, self.eos, tuple(live), tuple(ended))

    def _first(self, found: Candidates) -> list[int]:
        """Return which first tokens to branch off with.

        An empty target is no alternative, unless it is all there is: where the end is forced.
        """
        pairs = enumerate(zip(found.tokens, found.log_probs, strict=True))
        possible = [
            index
            for index, (token, log_prob) in pairs
            if token != self.eos and log_prob > float("-inf")
        ]
        return possible[: self.options.alternatives] or [0]

    def _end(self, before: Live, after: Live) -> Hypothesis | None:
        length = len(after.tokens)
        is_last = length >= self.options.max_new_tokens
        if after.tokens[-1] == self.eos:
            was_forced = is_last and self.options.forced_eos is not None
            score = self._normalised(after)
            return Hypothesis.ending_in(before, score, "length" if was_forced else "stop")
        return Hypothesis.ending_in(after, self._normalised(after), "length") if is_last else None

    def _normalised(self, last: Live) -> float:
        return float(last.score / len(last.tokens) ** self.options.length_penalty)

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """All, the likeliest first token first; empty until the last has ended."""
        found = tuple(hypothesis for hypothesis in self.ended if hypothesis is not None)
        return found if len(found) == len(self.live) else ()
