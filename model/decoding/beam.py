"""Beam search for one target: which hypotheses live, which are finished, when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from model.decoding.options import DecodingOptions
from model.decoding.search import Candidates, Hypothesis, Live

_END_TOKENS = 1
_IMPOSSIBLE = float("-inf")


class Finished(NamedTuple):
    """A hypothesis that has ended; `last` is without the end token, others as in `Hypothesis`."""

    last: Live
    score: float
    finish: Literal["stop", "length"]
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """Live and finished hypotheses, as `generate` of transformers 5.23 keeps them for one input.

    Of `(1 + end tokens) * num_beams` continuations the best that do not end live on; those among
    the first `num_beams` that end are finished, if the finished ones can still be improved.
    What filters made impossible is no continuation: where hardly anything is possible, fewer than
    `num_beams` live.

    Attributes:
        finished: best first, at most `num_beams`; what lacks phrases comes last, and counts only
            where there is nothing else.
        certain: how many first tokens all live hypotheses and the best finished one share.
    """

    options: DecodingOptions
    eos: int
    live: tuple[Live, ...]
    finished: tuple[Finished, ...] = ()
    certain: int = 0
    is_improvable: bool = True
    has_ended: bool = False

    @classmethod
    def begin(cls, options: DecodingOptions, eos: int) -> "BeamSearch":
        """Start from the target's prefix: one hypothesis, in the first row."""
        return cls(options, eos, (Live(),))

    @property
    def asked(self) -> Sequence[tuple[int, ...]]:
        """No tokens by name."""
        return ()

    @property
    def width(self) -> int:
        """How many candidates are needed of each row."""
        return (1 + _END_TOKENS) * self.options.num_beams

    def advance(self, candidates: Sequence[Candidates]) -> "BeamSearch":
        """Continue by one token.

        Args:
            candidates: by row, equally many of each, `width` if the vocabulary has them; rows
                beyond `live` are not read, and one of each is possible.
        """
        living, ending = self._continued(candidates)
        return self.after(living, ending)

    def after(self, living: Sequence[Live], ending: Sequence[Finished]) -> "BeamSearch":
        """Return the search a step later.

        Args:
            living: what goes on, best first; nothing ends the search.
            ending: what has ended in this step.
        """
        options, beams = self.options, self.options.num_beams
        live = tuple(living) or self.live
        finished = self.finished
        if ending and self._accepts:
            ranked = sorted([*finished, *ending], key=_rank, reverse=True)
            finished = tuple(ranked[:beams])
        is_full = _is_full(finished, beams)
        is_improvable = self.is_improvable and (
            not is_full or self._may_improve(live[0], finished[-1])
        )
        is_over = is_full and options.early_stopping is True
        has_ended = not is_improvable or is_over or not living
        certain = self.certain if has_ended else _agreement(self.certain, live, finished)
        return BeamSearch(options, self.eos, live, finished, certain, is_improvable, has_ended)

    def _continued(self, candidates: Sequence[Candidates]) -> tuple[list[Live], list[Finished]]:
        """Return the hypotheses that go on and those that end, both best first."""
        beams, eos, reports = self.options.num_beams, self.eos, self.options.wants_scores
        is_last = len(self.live[0].tokens) + 1 >= self.options.max_new_tokens
        living: list[Live] = []
        ending: list[Finished] = []
        for rank, (score, row, index) in enumerate(self._best(candidates)):
            before, found = self.live[row], candidates[row]
            if found.tokens[index] == eos:
                if rank < beams:
                    ending.append(self.ended(before, score, is_end=True))
            elif is_last:
                if rank < beams:
                    last = before.then(row, found, index, score, reports)
                    ending.append(self.ended(last, score, is_end=False))
            else:
                living.append(before.then(row, found, index, score, reports))
                if len(living) == beams:  # and those that end are among as many
                    break
        return living, ending

    def _best(self, candidates: Sequence[Candidates]) -> list[tuple[float, int, int]]:
        """Return score, row and index of the best possible continuations."""
        each = len(candidates[0].log_probs)
        scores: list[float] = []
        for live, found in zip(self.live, candidates, strict=False):
            before = live.score
            scores += [before + log_prob for log_prob in found.log_probs]
        # Of equal ones the first: sorting is stable, in reverse as well.
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        return [
            (scores[place], *divmod(place, each))
            for place in order[: self.width]
            if scores[place] > _IMPOSSIBLE
        ]

    @property
    def _accepts(self) -> bool:
        is_full = _is_full(self.finished, self.options.num_beams)
        return self.is_improvable and not (self.options.early_stopping is True and is_full)

    def ended(
        self, last: Live, score: float, *, is_end: bool, missing: tuple[int, ...] = ()
    ) -> Finished:
        """Return what one of the live hypotheses has become.

        Args:
            last: without the end token.
            score: the sum with that of the newest token.
            is_end: whether that is the end token, rather than the last that may be.
        """
        generated = len(self.live[0].tokens) + 1
        was_forced = (
            self.options.forced_eos is not None and generated == self.options.max_new_tokens
        )
        finish: Literal["stop", "length"] = "stop" if is_end and not was_forced else "length"
        return Finished(last, self.normalised(score, generated), finish, missing)

    def normalised(self, score: float, length: int) -> float:
        """Return what a hypothesis is ranked by, from the sum of its log-probabilities."""
        return float(score / length**self.options.length_penalty)

    def _may_improve(self, best: Live, worst: Finished) -> bool:
        """Whether the best live hypothesis could still beat the worst finished one."""
        penalty, early = self.options.length_penalty, self.options.early_stopping
        is_patient = early == "never" and penalty > 0
        generated = len(self.live[0].tokens) + 1
        length = self.options.max_new_tokens if is_patient else generated
        return self.normalised(best.score, length) > worst.score

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The wanted ones, best first; empty until the search has ended."""
        if not self.has_ended:
            return ()
        lacking = len(self.finished[0].missing) if self.finished else 0
        wanted = [
            finished
            for finished in self.finished[: self.options.num_hypotheses]
            if lacking or not finished.missing
        ]
        return tuple(Hypothesis.ending_in(*finished) for finished in wanted)


def _is_full(finished: Sequence[Finished], beams: int) -> bool:
    return len(finished) == beams and not finished[-1].missing


def _rank(finished: Finished) -> tuple[int, float]:
    return -len(finished.missing), finished.score


def _agreement(known: int, live: Sequence[Live], finished: Sequence[Finished]) -> int:
    """Return how many first tokens all of `live` and the best of `finished` share, from `known`."""
    possible = [hypothesis.tokens for hypothesis in live]
    possible += [best.last.tokens for best in finished[:1]]
    shortest = min(len(possible[0]), len(possible[-1]))
    while known < shortest and len({tokens[known] for tokens in possible}) == 1:
        known += 1
    return known
