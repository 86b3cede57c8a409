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
        candidates: of rows that search; of others that want scores, what was chosen, with its
            log-probability.
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
            if target.wants_scores:
                found.scored += span
            if target.search is None:
                choosing += span
                continue
            found.searching.setdefault(target.search.width, []).extend(span)
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
        logits: [rows, vocabulary] float32, the targets' rows in order, then padding; overwritten.
        alignments: by place, of each row whose target wants them.
    """
    places = _Places.of(targets)
    count = len(places.rows)
    picks = Picks([0] * count, [True] * count, {}, alignments)
    padded, logits = logits, logits[:count]
    total = raw = None
    if places.scored or places.searching:
        # Of all padded rows: of a single one, the sum would be split among threads.
        total = padded.logsumexp(1, keepdim=True)
        if places.scored:
            raw = _Raw(at(logits, places.scored) - at(total, places.scored), places.scored)
        _subtract(logits, total, places.normalised)
    filters.apply(logits, places.rows, table, eos, suppressed)
    if places.renormalised:
        _subtract(logits, padded.logsumexp(1, keepdim=True), places.renormalised)
    if places.choosing:
        _choose(logits, places, raw, table, picks)
    if total is not None and places.searching:
        forced = [place for place, _ in filters.forced_now(places.rows, table)]
        total[[*places.normalised, *forced]] = 0  # these hold log-probabilities already
        _search(logits, total, places, raw, picks)
    return picks


def _choose(
    logits: Tensor, places: _Places, raw: "_Raw | None", table: RowTable, picks: Picks
) -> None:
    rows = [places.rows[place] for place in places.choosing]
    tokens, healthy = choose(at(logits, places.choosing), rows, table)
    raws = raw.of(places.choosing, tokens[:, None]) if raw is not None else {}
    columns = zip(places.choosing, tokens.tolist(), healthy.tolist(), strict=True)
    for place, token, is_healthy in columns:
        picks.tokens[place], picks.healthy[place] = token, is_healthy
        if place in raws:
            picks.candidates[place] = Candidates([token], raws[place])


def _search(
    logits: Tensor, total: Tensor, places: _Places, raw: "_Raw | None", picks: Picks
) -> None:
    for width, some in places.searching.items():
        values, tokens = likeliest(logits, some, width)
        values -= at(total, some)
        raws = raw.of(some, tokens) if raw is not None else {}
        healthy = values[:, 0].isfinite().tolist()
        columns = zip(some, tokens.tolist(), values.tolist(), healthy, strict=True)
        for place, ids, log_probs, is_healthy in columns:
            picks.candidates[place] = Candidates(ids, log_probs, raws.get(place))
            picks.healthy[place] = is_healthy


def _subtract(logits: Tensor, total: Tensor, places: Sequence[int]) -> None:
    if places:
        index = torch.tensor(places, device=logits.device)
        logits[index] -= total[index]


@dataclass(frozen=True, slots=True)
class _Raw:
    """Log-probabilities before filters, of the places that want them."""

    log_probs: Tensor  # [places, vocabulary]
    places: list[int]

    def of(self, places: Sequence[int], tokens: Tensor) -> dict[int, list[float]]:
        """Return by place those of its `tokens` [places, width]; no place that wants none."""
        lines = {place: line for line, place in enumerate(self.places)}
        asked = [index for index, place in enumerate(places) if place in lines]
        if not asked:
            return {}
        index = torch.tensor([lines[places[i]] for i in asked], device=tokens.device)
        found = self.log_probs[index].gather(1, tokens[asked])
        return dict(zip([places[i] for i in asked], found.tolist(), strict=True))
