"""Constrained beam search: hypotheses compete with those that hold as much of the phrases."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from model.decoding.beam import BeamSearch, Finished
from model.decoding.options import DecodingOptions
from model.decoding.phrases import Phrases, Progress
from model.decoding.search import Candidates, Hypothesis, Live

_IMPOSSIBLE = float("-inf")


class _Continuation(NamedTuple):
    score: float
    row: int
    place: int  # among the row's candidates
    progress: Progress
    is_end: bool


@dataclass(frozen=True, slots=True)
class ConstrainedSearch:
    """A beam search for targets that contain phrases.

    Dynamic beam allocation (Post and Vilar 2018, arXiv:1804.06609): continuations that hold
    equally many tokens of the phrases form a bank, and the banks take turns to fill the beams, the
    fullest first (Hu et al. 2019, NAACL). So a phrase, however unlikely, is tried wherever it may
    stand, and the best place for it wins.

    What ends without all phrases is kept for the case that nothing ends with them. Where it is
    better than whatever lives, the time for phrases has come: hypotheses that lack some go on with
    nothing else. Without that they would be spun out, and spoil what they could still become.

    Attributes:
        progress: by live hypothesis.
        best_end: the best score of what has ended, with all phrases or without.
        is_late: whether hypotheses that lack phrases go on with nothing else.
    """

    beams: BeamSearch
    phrases: Phrases
    progress: tuple[Progress, ...]
    best_end: float = _IMPOSSIBLE
    is_late: bool = False

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
        return [*map(self.phrases.advancing, self.progress)]

    @property
    def certain(self) -> int:
        """As `BeamSearch` says."""
        return self.beams.certain

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """As `BeamSearch` says; those that lack phrases only where all do."""
        return self.beams.hypotheses

    def advance(self, candidates: Sequence[Candidates]) -> "ConstrainedSearch":
        """Continue by one token.

        Args:
            candidates: by row, those of `asked` among them.
        """
        beams, reports = self.beams, self.beams.options.wants_scores
        taken, ends = self._continued(candidates)
        ending = [self._finished(self.live[found.row], found) for found in ends]
        living = [
            self.live[row].then(row, candidates[row], place, score, reports)
            for score, row, place, _, _ in taken
        ]
        if self._room == 0:
            pairs = zip(living, taken, strict=True)
            ending += [self._finished(last, found) for last, found in pairs]
            living = []
        after = beams.after(living, ending)
        progress = tuple(found.progress for found in taken) or self.progress
        best_end = max([self.best_end, *(finished.score for finished in ending)])
        is_late = self.is_late or any(
            best_end >= beams.normalised(best.score, len(best.tokens)) for best in living[:1]
        )
        return ConstrainedSearch(after, self.phrases, progress, best_end, is_late)

    @property
    def _room(self) -> int:
        """How many tokens may follow the next one."""
        return self.beams.options.max_new_tokens - len(self.live[0].tokens) - 1

    def _continued(
        self, candidates: Sequence[Candidates]
    ) -> tuple[list[_Continuation], list[_Continuation]]:
        """Return what goes on, the best first, and what ends.

        What ends is among the first `num_beams` of its bank, as in a search of that bank alone.
        """
        beams = self.beams.options.num_beams
        turns: list[tuple[int, int, _Continuation]] = []
        ends: list[_Continuation] = []
        for needed, bank in self._banks(candidates).items():
            turn = 0
            for rank, found in enumerate(bank):
                if not found.is_end:
                    turns.append((turn, needed, found))
                    turn += 1
                elif rank < beams:
                    ends.append(found)
        turns.sort(key=itemgetter(0, 1))
        taken = [found for _, _, found in turns[:beams]]
        return sorted(taken, key=itemgetter(0), reverse=True), ends

    def _banks(self, candidates: Sequence[Candidates]) -> dict[int, list[_Continuation]]:
        """Return possible continuations by the tokens that they need, each bank best first."""
        room = self._room - (self.beams.options.forced_eos is not None)
        possible = self._possible(candidates)
        hopeful = [found for found in possible if found.is_end or self._is_hopeful(found, room)]
        if all(found.is_end for found in hopeful):
            hopeful = possible
        banks: dict[int, list[_Continuation]] = {}
        for found in hopeful:
            banks.setdefault(found.progress.needed, []).append(found)
        return banks

    def _possible(self, candidates: Sequence[Candidates]) -> list[_Continuation]:
        """Return all continuations that are possible, best first; of equal ones the first row's."""
        after, eos, found = self.phrases.after, self.beams.eos, []
        rows = zip(self.live, self.progress, candidates, strict=False)
        for row, (live, before, each) in enumerate(rows):
            pairs = zip(each.tokens, each.log_probs, strict=True)
            for place, (token, log_prob) in enumerate(pairs):
                if log_prob > _IMPOSSIBLE:
                    is_end = token == eos
                    progress = before if is_end else after(before, token)
                    score = live.score + log_prob
                    found.append(_Continuation(score, row, place, progress, is_end))
        return sorted(found, key=itemgetter(0), reverse=True)

    def _is_hopeful(self, found: _Continuation, room: int) -> bool:
        """Whether it can still come to hold all phrases, in the time that is left for them.

        Args:
            room: how many tokens may follow that are not forced.
        """
        needed = found.progress.needed
        is_in_time = not self.is_late or needed < self.progress[found.row].needed
        return not needed or (needed <= room and is_in_time)

    def _finished(self, last: Live, found: _Continuation) -> Finished:
        missing = self.phrases.missing(found.progress)
        return self.beams.ended(last, found.score, is_end=found.is_end, missing=missing)
