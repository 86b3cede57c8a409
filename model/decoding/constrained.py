"""Constrained beam search: the hypotheses compete among those that have met as much as they."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from model.decoding.beam import BeamSearch, Finished
from model.decoding.options import DecodingOptions
from model.decoding.phrases import Phrases, Progress
from model.decoding.search import Candidates, Hypothesis, Live

_IMPOSSIBLE = float("-inf")


class _Continuation(NamedTuple):
    score: float
    row: int
    index: int  # of the row's candidates
    progress: Progress


@dataclass(frozen=True, slots=True)
class ConstrainedSearch:
    """A beam search whose hypotheses must contain phrases.

    Dynamic beam allocation (Post and Vilar 2018, arXiv:1804.06609): continuations that have met
    equally many tokens of the phrases form a bank, and the banks take turns to fill the beams
    (Hu et al. 2019, "Improved lexically constrained decoding"), so that a phrase's beginning,
    which is unlikely nearly everywhere, is tried everywhere. What can no longer hold all phrases
    within the limit goes on only where nothing else can.

    What ends without all phrases is kept for the case that nothing ends with them.

    Attributes:
        beams: what lives and what is finished.
        progress: by live hypothesis.
    """

    beams: BeamSearch
    phrases: Phrases
    progress: tuple[Progress, ...]

    @classmethod
    def begin(cls, options: DecodingOptions, eos: int) -> "ConstrainedSearch":
        """Start from the target's prefix, which counts for no phrase."""
        phrases = Phrases(options.phrases)
        return cls(BeamSearch.begin(options, eos), phrases, (phrases.begin(),))

    @property
    def width(self) -> int:
        """How many of the likeliest candidates are needed of each row."""
        return self.beams.width

    @property
    def live(self) -> tuple[Live, ...]:
        """The hypotheses that go on, best first."""
        return self.beams.live

    @property
    def asked(self) -> Sequence[tuple[int, ...]]:
        """By live hypothesis the tokens that begin or continue a phrase that it lacks."""
        return [self.phrases.advancing(progress) for progress in self.progress]

    @property
    def certain(self) -> int:
        """As `BeamSearch.certain`."""
        return self.beams.certain

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The wanted ones, best first; those that lack phrases only if all do."""
        return self.beams.hypotheses

    def advance(self, candidates: Sequence[Candidates]) -> "ConstrainedSearch":
        """Continue by one token.

        Args:
            candidates: by row, those of `asked` among them.
        """
        beams, most = self.beams, self.beams.options.num_beams
        going, ending = [], []
        is_last = self._room == 0
        for rank, found in enumerate(self._possible(candidates)):
            if candidates[found.row].tokens[found.index] != beams.eos:
                going.append(found)
            elif rank < most:
                ending.append(self._finished(self.live[found.row], found, is_end=True))
        taken = self._taken(going)
        reports = beams.options.wants_scores
        living = [
            self.live[row].then(row, candidates[row], index, score, reports)
            for score, row, index, _ in taken
        ]
        if is_last:
            pairs = zip(living, taken, strict=True)
            ending += [self._finished(last, found, is_end=False) for last, found in pairs]
            living, taken = [], []
        after = beams.after(living, ending, living[0] if living else None)
        progress = tuple(found.progress for found in taken) or self.progress
        return ConstrainedSearch(after, self.phrases, progress)

    @property
    def _room(self) -> int:
        """How many tokens may follow the next one."""
        return self.beams.options.max_new_tokens - len(self.live[0].tokens) - 1

    def _possible(self, candidates: Sequence[Candidates]) -> list[_Continuation]:
        """Return all continuations that are possible, the best first."""
        after, found = self.phrases.after, []
        rows = zip(self.live, self.progress, candidates, strict=False)
        for row, (live, progress, each) in enumerate(rows):
            found += [
                _Continuation(live.score + log_prob, row, index, after(progress, token))
                for index, (token, log_prob) in enumerate(
                    zip(each.tokens, each.log_probs, strict=True)
                )
                if log_prob > _IMPOSSIBLE
            ]
        return sorted(found, key=lambda each: -each.score)  # of equal ones the first

    def _finished(self, last: Live, found: _Continuation, *, is_end: bool) -> Finished:
        # The end token belongs to no phrase.
        progress = self.progress[found.row] if is_end else found.progress
        missing = self.phrases.missing(progress)
        return self.beams.ended(last, found.score, is_end=is_end, missing=missing)

    def _taken(self, going: Sequence[_Continuation]) -> list[_Continuation]:
        """Return which go on, best first: the banks take turns, the fullest first."""
        beams = self.beams.options.num_beams
        room = self._room - (self.beams.options.forced_eos is not None)
        hopeful = [found for found in going if found.progress.needed <= room]
        banks: dict[int, list[_Continuation]] = {}
        for found in hopeful or going:
            banks.setdefault(found.progress.needed, []).append(found)
        turns = [
            (turn, needed, found)
            for needed, bank in banks.items()
            for turn, found in enumerate(bank[:beams])
        ]
        turns.sort(key=lambda each: each[:2])
        return sorted((found for *_, found in turns[:beams]), key=lambda each: -each.score)
