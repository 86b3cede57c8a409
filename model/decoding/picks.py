"""Picks: what the logits of a step come to, as plain values by place in the step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.decoding import filters
from model.decoding.choose import at, choose, likeliest
from model.decoding.rows import RowTable
from model.decoding.search import Alignment, Candidates
from model.decoding.target import Target


@dataclass(frozen=True, slots=True)
class Picks:
    """What a step found for each row, by place; made from logits here or in a fused backend.

    Attributes:
        tokens: what a row that does not search goes on with; elsewhere anything.
        healthy: whether the row's logits had neither a NaN nor an infinity that counts.
        candidates: of rows that search, tokens that were asked for by name behind the likeliest;
            of others that want scores, what was chosen, with its log-probability.
        alignments: of rows whose targets want them.
    """

    tokens: list[int]
    healthy: list[bool]
    candidates: dict[int, Candidates] = field(default_factory=dict)
    alignments: Mapping[int, Alignment] = field(default_factory=dict)


@dataclass(slots=True)
class _Places:
    """Which places of a step ask for what, each list ascending."""

    rows: list[int] = field(default_factory=list)  # of all places
    choosing: list[int] = field(default_factory=list)
    searching: dict[int, list[int]] = field(default_factory=dict)  # by width
    asked: dict[int, tuple[int, ...]] = field(default_factory=dict)  # tokens by name
    reported: list[int] = field(default_factory=list)  # log-probabilities are needed
    scored: list[int] = field(default_factory=list)
    normalised: list[int] = field(default_factory=list)  # filters read log-probabilities
    renormalised: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, targets: Sequence[Target]) -> "_Places":
        found = cls()
        rows, choosing = found.rows, found.choosing
        for target in targets:
            span = range(len(rows), len(rows) + len(target.rows))
            rows += target.rows
            if target.wants_scores or target.search is not None:
                found.reported += span
            if target.wants_scores:
                found.scored += span
            if target.search is None:
                choosing += span
                continue
            found.searching.setdefault(target.search.width, []).extend(span)
            for index, tokens in zip(target.order, target.search.asked, strict=False):
                found.asked[span[index]] = tokens
            if target.options.renormalises or target.options.repetition_penalty != 1:
                found.normalised += span
            if target.options.renormalises:
                found.renormalised += span
        return found


def read(
    logits: Tensor,
    targets: Sequence[Target],
    alignments: Mapping[int, Alignment],
    table: RowTable,
    eos: int,
    suppressed: Tensor,
) -> Picks:
    """Filter logits and choose from them, whatever each target asks for.

    Filters of a search read log-probabilities, others logits, as in transformers.

    Args:
        logits: [rows, vocabulary] float32, the targets' rows in order, then any; overwritten.
        alignments: by place, of each row whose target wants them.
    """
    places = _Places.of(targets)
    picks = Picks([0] * len(places.rows), [True] * len(places.rows), {}, alignments)
    before = _LogProbabilities.of(logits, places.reported)
    if places.normalised:
        logits[torch.tensor(places.normalised, device=logits.device)] = before.at(places.normalised)
    logits = logits[: len(places.rows)]
    filters.apply(logits, places.rows, table, eos, suppressed)
    if places.renormalised:
        index = torch.tensor(places.renormalised, device=logits.device)
        logits[index] = logits[index].log_softmax(1)
    if places.choosing:
        _choose(logits, places, before, table, picks)
    if places.searching:
        _search(logits, places, before, table, picks)
    return picks


@dataclass(frozen=True, slots=True)
class _LogProbabilities:
    """Of all tokens, before filters, at the places that need them."""

    values: Tensor  # [places, vocabulary]
    lines: dict[int, int]  # by place

    @classmethod
    def of(cls, logits: Tensor, places: list[int]) -> "_LogProbabilities":
        values = at(logits, places).log_softmax(1) if places else logits[:0]
        return cls(values, {place: line for line, place in enumerate(places)})

    def at(self, places: Sequence[int]) -> Tensor:
        return at(self.values, [self.lines[place] for place in places])


def _choose(
    logits: Tensor, places: _Places, before: _LogProbabilities, table: RowTable, picks: Picks
) -> None:
    rows = [places.rows[place] for place in places.choosing]
    tokens, healthy = choose(at(logits, places.choosing), rows, table)
    columns = zip(places.choosing, tokens.tolist(), healthy.tolist(), strict=True)
    for place, token, is_healthy in columns:
        picks.tokens[place], picks.healthy[place] = token, is_healthy
    if scored := [place for place in places.choosing if place in before.lines]:
        chosen = [[picks.tokens[place]] for place in scored]
        index = torch.tensor(chosen, device=logits.device)
        raws = before.at(scored).gather(1, index).tolist()
        for place, ids, raw in zip(scored, chosen, raws, strict=True):
            picks.candidates[place] = Candidates(ids, raw)


def _search(
    logits: Tensor, places: _Places, before: _LogProbabilities, table: RowTable, picks: Picks
) -> None:
    own = {*places.normalised, *(place for place, _ in filters.forced_now(places.rows, table))}
    scored = {*places.scored}
    for width, some in places.searching.items():
        values, tokens = likeliest(at(logits, some), width)
        raw = before.at(some).gather(1, tokens)
        is_kept = values == float("-inf")
        if own:  # these hold log-probabilities already
            is_own = [place in own for place in some]
            is_kept |= torch.tensor(is_own, device=logits.device)[:, None]
        log_probs = values.where(is_kept, raw).tolist()
        raws = raw.tolist() if scored else []
        healthy = values[:, 0].isfinite().tolist()
        for line, (place, ids) in enumerate(zip(some, tokens.tolist(), strict=True)):
            reported = raws[line] if place in scored else None
            picks.candidates[place] = Candidates(ids, log_probs[line], reported)
            picks.healthy[place] = healthy[line]
    if places.asked:
        _add_asked(logits, places, before, own, picks)


def _add_asked(
    logits: Tensor, places: _Places, before: _LogProbabilities, own: set[int], picks: Picks
) -> None:
    """Put behind the likeliest candidates of rows the tokens that were asked for by name.

    Args:
        logits: filtered.
        own: places whose logits are log-probabilities already.
    """
    wanted = [
        (place, before.lines[place], token)
        for place, asked in places.asked.items()
        for token in asked
        if token not in picks.candidates[place].tokens
    ]
    if not wanted:
        return
    place, line, token = torch.tensor(wanted, device=logits.device).unbind(1)
    values, raw = logits[place, token], before.values[line, token]
    is_kept = values == float("-inf")
    if own:
        is_kept |= torch.tensor([at in own for at, *_ in wanted], device=logits.device)
    columns = zip(wanted, values.where(is_kept, raw).tolist(), raw.tolist(), strict=True)
    for (its, _, name), log_prob, reported in columns:
        found = picks.candidates[its]
        raws = found.raw_log_probs
        picks.candidates[its] = Candidates(
            [*found.tokens, name],
            [*found.log_probs, log_prob],
            None if raws is None else [*raws, reported],
        )
