"""Beam search for one target: which hypotheses live, which are finished, when it ends."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, NamedTuple

from model.decoding.options import DecodingOptions
from model.decoding.search import Candidate, Hypothesis, Live, Node, agreement

_END_TOKENS = 1
_IMPOSSIBLE = float("-inf")


class _Finished(NamedTuple):
    node: Node  # of the last token before the end
    score: float
    finish: Literal["stop", "length"]


class _Continuation(NamedTuple):
    score: float
    beam: int
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """Live and finished hypotheses, as `generate` of transformers 5.23 keeps them for one input.

    Of `(1 + end tokens) * num_beams` continuations the best that do not end live on; those among
    the first `num_beams` that end are finished, if the finished ones can still be improved.
    What filters made impossible is no continuation: where hardly anything is possible, fewer than
    `num_beams` live.
    """

    options: DecodingOptions
    eos: int
    live: tuple[Live, ...]
    finished: tuple[_Finished, ...] = ()  # best first, at most num_beams
    is_improvable: bool = True
    has_ended: bool = False

    @classmethod
    def begin(cls, options: DecodingOptions, eos: int) -> "BeamSearch":
        """Start from the target's prefix: one hypothesis, in the first row."""
        return cls(options, eos, (Live(Node(), 0.0, 0),))

    @property
    def width(self) -> int:
        """How many candidates are needed of each row."""
        return (1 + _END_TOKENS) * self.options.num_beams

    def advance(self, candidates: Sequence[Sequence[Candidate]]) -> "BeamSearch":
        """Continue by one token.

        Args:
            candidates: by row, best first, `width` of each; rows beyond `live` are not read, and
                one of each is possible.
        """
        beams = self.options.num_beams
        generated = self.live[0].node.depth + 1
        best = self._best(candidates)
        is_last = generated >= self.options.max_new_tokens
        ends = [is_last or c.candidate.token == self.eos for c in best]
        living = [c for c, end in zip(best, ends, strict=True) if not end][:beams]
        new = [c for c, end in zip(best[:beams], ends, strict=False) if end]
        after = replace(
            self,
            live=tuple(self._lived(c) for c in living) or self.live,
            finished=self._with(new, generated) if self._accepts else self.finished,
        )
        is_improvable = self.is_improvable and after._may_improve(generated)
        is_full = self.options.early_stopping is True and len(after.finished) == beams
        has_ended = not is_improvable or is_full or all(ends)
        return replace(after, is_improvable=is_improvable, has_ended=has_ended)

    def _best(self, candidates: Sequence[Sequence[Candidate]]) -> list[_Continuation]:
        continuations = (
            _Continuation(live.score + candidate.log_prob, beam, candidate)
            for beam, live in enumerate(self.live)
            for candidate in candidates[beam]
            if candidate.log_prob > _IMPOSSIBLE
        )
        return heapq.nlargest(self.width, continuations, key=attrgetter("score"))

    @property
    def _accepts(self) -> bool:
        is_full = len(self.finished) == self.options.num_beams
        return self.is_improvable and not (self.options.early_stopping is True and is_full)

    def _lived(self, continuation: _Continuation) -> Live:
        return Live(self._node(continuation), continuation.score, continuation.beam)

    def _node(self, continuation: _Continuation) -> Node:
        candidate, before = continuation.candidate, self.live[continuation.beam].node
        return Node(
            candidate.token, before, before.depth + 1, candidate.raw_log_prob, candidate.alignment
        )

    def _with(self, ended: list[_Continuation], generated: int) -> tuple[_Finished, ...]:
        """Return the finished hypotheses with those that have ended now, the best of all."""
        new = [
            _Finished(
                self.live[c.beam].node if c.candidate.token == self.eos else self._node(c),
                self._normalised(c.score, generated),
                self._finish(c, generated),
            )
            for c in ended
        ]
        ranked = sorted([*self.finished, *new], key=attrgetter("score"), reverse=True)
        return tuple(ranked[: self.options.num_beams])

    def _finish(self, ended: _Continuation, generated: int) -> Literal["stop", "length"]:
        was_forced = (
            self.options.forced_eos is not None and generated == self.options.max_new_tokens
        )
        return "stop" if ended.candidate.token == self.eos and not was_forced else "length"

    def _normalised(self, score: float, length: int) -> float:
        return float(score / length**self.options.length_penalty)

    def _may_improve(self, generated: int) -> bool:
        """Whether the best live hypothesis could still beat the worst finished one."""
        if len(self.finished) < self.options.num_beams:
            return True
        penalty, early = self.options.length_penalty, self.options.early_stopping
        is_patient = early == "never" and penalty > 0
        length = self.options.max_new_tokens if is_patient else generated
        return self._normalised(self.live[0].score, length) > self.finished[-1].score

    @property
    def certain(self) -> Node:
        """The last node that every possible winner shares: the live ones, the best finished one."""
        nodes = [live.node for live in self.live]
        if self.has_ended:
            nodes = []
        return agreement([*nodes, *(best.node for best in self.finished[:1])])

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The wanted ones, best first; empty until the search has ended."""
        if not self.has_ended:
            return ()
        wanted = self.finished[: self.options.num_hypotheses]
        return tuple(Hypothesis.ending_in(*finished) for finished in wanted)
