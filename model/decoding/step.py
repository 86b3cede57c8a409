"""One decode step's choices: what each target gains, and how its rows go on."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from model.decoding.picks import Picks, read
from model.decoding.rows import RowTable
from model.decoding.search import Alignment, Candidates, Hypothesis, Search
from model.decoding.target import Target


class Step(NamedTuple):
    """What one target gained in one step.

    Attributes:
        tokens: new and certain, in order; none in a step of the prefix, and any number of them
            where hypotheses had to agree first.
        scores: log-probabilities of `tokens` before filters; 0 where they were not asked for.
        alignments: of `tokens`, over the source; empty where they were not asked for.
        preview: what the best hypothesis holds beyond what is certain.
        hypotheses: what a search has found, best first, once it has ended. The first begins with
            all tokens that were reported.
        is_healthy: whether no row produced a NaN or an infinity; nothing else counts if one did.
        is_awaited: nothing was decoded, for the source is still being encoded.
        steps: how many a search took that went on by itself.
    """

    tokens: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    alignments: tuple[Alignment, ...] = ()
    preview: tuple[int, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    is_healthy: bool = True
    is_awaited: bool = False
    steps: int = 1


class Move(NamedTuple):
    """How one target goes on: nothing has been changed yet.

    Attributes:
        search, order: the target's after the step.
        tokens, parents: by row of the target, what it holds next and after which row's history;
            `parents` is `target.rows` itself where each follows its own.
    """

    step: Step
    target: Target
    search: Search | None
    order: tuple[int, ...]
    tokens: Sequence[int]
    parents: Sequence[int]


class Chooser:
    """Applies filters and choice to every row of a step, whatever each of them asks for."""

    def __init__(self, table: RowTable, eos: int, suppressed: Tensor) -> None:
        """Choose for the rows of `table`; none may ever hold a token of `suppressed`."""
        self._table, self._eos, self._suppressed = table, eos, suppressed

    def demand(self, targets: Sequence[Target]) -> list[int]:
        """Return what each row of a step needs, by place.

        `target.LOGITS`: all of its logits, through `read`. `target.UNREAD`: nothing but its
        health. `target.GREEDY`: the likeliest token. Above 0: so many candidates, best first, of
        equal ones the lowest id first; by their log-probabilities over all tokens. Suppressed
        tokens are never among them, nor the likeliest.
        """
        decoded, widths = self._table.decoded, []
        for target in targets:
            width = target.width(decoded[target.rows[0]])
            widths += [width] * len(target.rows)
        return widths

    def read(
        self, logits: Tensor, targets: Sequence[Target], alignments: Mapping[int, Alignment]
    ) -> Picks:
        """Return what `moves` needs, from the logits of every row; arguments as in `picks.read`."""
        return read(logits, targets, alignments, self._table, self._eos, self._suppressed)

    def moves(self, picks: Picks, targets: Sequence[Target]) -> list[Move]:
        """Return how each target goes on, from what `read` made, or a backend by `demand`."""
        decoded, healthy = self._table.decoded, picks.healthy
        are_healthy = all(healthy)
        moves, place = [], 0
        for target in targets:
            position, end = decoded[target.rows[0]], place + len(target.rows)
            if not (are_healthy or all(healthy[place:end])):
                moves.append(_stay(target, 0, Step(is_healthy=False)))
            elif position < target.prefix:
                moves.append(_stay(target, target.options.target_prefix[position], Step()))
            elif target.search is None:
                moves.append(self._chosen(target, picks, place, position))
            else:
                candidates = self._candidates(target, picks, place, position)
                moves.append(_advance(target, target.search, target.search.advance(candidates)))
            place = end
        return moves

    def _chosen(self, target: Target, picks: Picks, place: int, position: int) -> Move:
        token, score = picks.tokens[place], 0.0
        found = picks.candidates.get(place)
        if found is not None:
            if target.is_early(position):
                found = _without(found, self._eos, 1)
            token = found.tokens[0]
            score = found.log_probs[0] if target.wants_scores else 0.0
        elif position in target.forced:
            token = target.forced[position]
        aligned = (picks.alignments[place],) if target.wants_alignment else ()
        step = Step((token,), (score,), aligned)
        return Move(step, target, None, target.order, (token,), target.rows)

    def _candidates(
        self, target: Target, picks: Picks, place: int, position: int
    ) -> list[Candidates]:
        assert target.search is not None
        span = [place + index for index in target.order]
        if place not in picks.candidates:
            found = [Candidates([target.forced[position]], [0.0])] * len(span)
        else:
            found = [picks.candidates[each] for each in span]
            if target.is_early(position) and not target.needs_logits:
                width = target.search.width
                found = [_without(each, self._eos, width) for each in found]
        if not target.wants_alignment:
            return found
        return [
            each._replace(alignment=picks.alignments[its])
            for each, its in zip(found, span, strict=True)
        ]


def _without(found: Candidates, token: int, width: int) -> Candidates:
    """Return the first `width` candidates but `token`, unless it is impossible already."""
    kept = [
        index
        for index, (each, log_prob) in enumerate(zip(found.tokens, found.log_probs, strict=True))
        if each != token or log_prob == float("-inf")
    ][:width]
    raw = found.raw_log_probs
    return Candidates(
        [found.tokens[index] for index in kept],
        [found.log_probs[index] for index in kept],
        None if raw is None else [raw[index] for index in kept],
    )


def _stay(target: Target, token: int, step: Step) -> Move:
    """Let every row of a target go on with the same token."""
    tokens = (token,) * len(target.rows)
    return Move(step, target, target.search, target.order, tokens, target.rows)


def _advance(target: Target, before: Search, search: Search) -> Move:
    """Let the rows of a target hold what lives after a step of its search."""
    rows, live = target.rows, search.live
    step = _reported(target, before, search)
    if search.hypotheses:  # nobody reads its rows any more
        return Move(step, target, search, target.order, (0,) * len(rows), rows)
    first = live[0]
    origins = [target.order[hypothesis.parent] for hypothesis in live]
    order = _settle(origins, len(rows))
    # A row without a hypothesis of its own goes on by itself, unread.
    tokens, parents = [first.tokens[-1]] * len(rows), [*rows]
    for index, origin, hypothesis in zip(order, origins, live, strict=False):
        tokens[index] = hypothesis.tokens[-1]
        parents[index] = rows[origin]
    return Move(step, target, search, order, tokens, parents)


def _reported(target: Target, before: Search, after: Search) -> Step:
    """Return what a target gained while its search went on, by one token or by several."""
    if hypotheses := after.hypotheses:
        return Step(hypotheses=hypotheses)
    first, known, certain = after.live[0], before.certain, after.certain
    new = first.tokens[known:certain]
    return Step(
        new,
        first.log_probs[known:certain] if target.wants_scores else (0.0,) * len(new),
        first.alignments[known:certain],
        first.tokens[certain:],
    )


def searched(
    target: Target, search: Search, steps: int, decoded: int
) -> tuple[Step, list[tuple[int, ...]]]:
    """Return what a target gained by a search that went on by itself, nothing moved between rows.

    Args:
        decoded: tokens that it had `steps` steps before, those of its prefix included.

    Returns:
        The step, and by row of the target all tokens that it holds now.
    """
    assert target.search is not None
    step = _reported(target, target.search, search)._replace(steps=steps)
    known = target.options.target_prefix[: decoded + steps]
    lines = [known + search.live[0].tokens] * len(target.rows)
    for index, hypothesis in zip(target.order, search.live, strict=False):
        lines[index] = known + hypothesis.tokens
    return step, lines


def _settle(origins: Sequence[int], rows: int) -> tuple[int, ...]:
    """Return which row each hypothesis takes: its origin's where it can, so that few are copied.

    Args:
        origins: the row that each hypothesis continues, the best first.
        rows: how many there are; what no hypothesis takes comes last.
    """
    free, stays = {*range(rows)}, []
    for origin in origins:
        stays.append(origin in free)
        free.discard(origin)
    others = iter(sorted(free))
    order = [origin if stay else next(others) for origin, stay in zip(origins, stays, strict=True)]
    return (*order, *others)
