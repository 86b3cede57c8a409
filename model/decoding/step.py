"""One decode step's choices: from the logits of all running rows to what each target gained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.decoding import filters
from model.decoding.alternatives import Alternatives
from model.decoding.beam import BeamSearch
from model.decoding.choose import choose, likeliest
from model.decoding.options import DecodingOptions
from model.decoding.rows import RowTable
from model.decoding.search import Alignment, Candidate, Hypothesis, Search


@dataclass(frozen=True, slots=True)
class Target:
    """What one request decodes: the rows it holds, and the search they make together, if any.

    Attributes:
        certain: how many tokens after the prefix were reported.
    """

    rows: tuple[int, ...]
    options: DecodingOptions
    source_length: int
    search: Search | None = None
    certain: int = 0

    @classmethod
    def begin(
        cls, rows: tuple[int, ...], options: DecodingOptions, source_length: int, eos: int
    ) -> "Target":
        """Hold `rows`, as many as the options ask for."""
        search: Search | None = None
        if options.alternatives:
            search = Alternatives.begin(options, eos)
        elif options.num_beams > 1:
            search = BeamSearch.begin(options, eos)
        return cls(rows, options, source_length, search)


@dataclass(frozen=True, slots=True)
class Step:
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
    """

    tokens: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    alignments: tuple[Alignment, ...] = ()
    preview: tuple[int, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    is_healthy: bool = True


@dataclass(frozen=True, slots=True)
class Move:
    """How one target goes on: nothing has been changed yet.

    Attributes:
        tokens, parents: by row of the target, what it holds next and after which row's history.
        target: as it is after the step.
    """

    step: Step
    target: Target
    tokens: list[int]
    parents: list[int]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the logits of a step come to, by place in it."""

    tokens: list[int]
    scores: list[float]
    healthy: list[bool]
    alignments: Mapping[int, Alignment]  # of rows that asked
    candidates: dict[int, list[Candidate]]  # of rows that search


class Chooser:
    """Applies filters and choice to every row of a step, whatever each of them asks for."""

    def __init__(self, table: RowTable, eos: int, suppressed: Tensor) -> None:
        self._table, self._eos, self._suppressed = table, eos, suppressed

    def decide(
        self, logits: Tensor, targets: Sequence[Target], alignments: Mapping[int, Alignment]
    ) -> list[Move]:
        """Choose what every row continues with; returns one move per target.

        Args:
            logits: [rows, vocabulary] float32, the targets' rows in order, then padding.
            alignments: by place in the step, of each row whose target wants them.
        """
        rows = self._read(logits, targets, alignments)
        moves, place = [], 0
        for target in targets:
            span = range(place, place + len(target.rows))
            moves.append(self._move(target, rows, span))
            place = span.stop
        return moves

    def _read(
        self, logits: Tensor, targets: Sequence[Target], alignments: Mapping[int, Alignment]
    ) -> _Rows:
        rows = [row for target in targets for row in target.rows]
        raw, padded = self._log_probabilities(logits, targets)
        logits = padded[: len(rows)]
        index = torch.tensor(rows, device=logits.device)
        filters.apply(logits, index, rows, self._table, self._eos, self._suppressed)
        tokens, healthy = choose(logits, rows, self._table)
        scores = [0.0] * len(rows)
        if raw is not None:
            scores = raw.gather(1, tokens[:, None]).squeeze(1).tolist()
        _renormalise(padded, targets)
        candidates = _candidates(logits, raw, targets, alignments)
        return _Rows(tokens.tolist(), scores, healthy.tolist(), alignments, candidates)

    @staticmethod
    def _log_probabilities(
        logits: Tensor, targets: Sequence[Target]
    ) -> tuple[Tensor | None, Tensor]:
        """Return log-probabilities if any are asked for, and what the filters read.

        That is logits where one token is chosen and log-probabilities in a search, as in
        transformers.
        """
        is_asked = any(target.options.wants_scores for target in targets)
        searching = [target.search is not None for target in targets for _ in target.rows]
        if not is_asked and not any(searching):
            return None, logits
        # Of all padded rows: of a single one, the sum would be split among threads.
        total = logits.logsumexp(1, keepdim=True)
        raw = (logits - total)[: len(searching)] if is_asked else None
        if any(searching):
            is_choice = torch.ones(len(logits), 1, dtype=torch.bool)
            is_choice[: len(searching), 0] = ~torch.tensor(searching)
            logits = logits - total.masked_fill(is_choice.to(logits.device), 0.0)
        return raw, logits

    def _move(self, target: Target, rows: _Rows, span: range) -> Move:
        known = self._table.known(target.rows[0])
        if not all(rows.healthy[place] for place in span):
            return _stay(target, 0, Step(is_healthy=False))
        if known is not None:
            return _stay(target, known, Step())
        if target.search is None:
            place = span.start
            wants_scores = target.options.wants_scores
            score = rows.scores[place] if wants_scores else 0.0
            aligned = (rows.alignments[place],) if target.options.alignments is not None else ()
            step = Step((rows.tokens[place],), (score,), aligned)
            return _stay(target, rows.tokens[place], step)
        return _advance(target, target.search.advance([rows.candidates[p] for p in span]))


def _renormalise(logits: Tensor, targets: Sequence[Target]) -> None:
    """Let filtered rows that ask for it sum up to one again, in place; `logits` are padded."""
    asked = [t.search is not None and t.options.renormalises for t in targets for _ in t.rows]
    if not any(asked):
        return
    # Of all padded rows: of a single one, the sum would be split among threads.
    total = logits.logsumexp(1, keepdim=True)
    is_asked = torch.zeros(len(logits), 1, dtype=torch.bool)
    is_asked[: len(asked), 0] = torch.tensor(asked)
    logits -= total.masked_fill(~is_asked.to(logits.device), 0.0)


def _candidates(
    logits: Tensor,
    raw: Tensor | None,
    targets: Sequence[Target],
    alignments: Mapping[int, Alignment],
) -> dict[int, list[Candidate]]:
    """Return the candidates of every row that searches, by its place in the step."""
    places: dict[int, list[int]] = {}  # by how many candidates their searches need
    wants_scores: list[bool] = []
    for target in targets:
        if target.search is not None:
            span = range(len(wants_scores), len(wants_scores) + len(target.rows))
            places.setdefault(target.search.width, []).extend(span)
        wants_scores += [target.options.wants_scores] * len(target.rows)
    found: dict[int, list[Candidate]] = {}
    for width, some in places.items():
        values, tokens = likeliest(logits, some, width)
        reported = torch.zeros_like(values)
        if raw is not None:
            asked = torch.tensor([wants_scores[place] for place in some], device=values.device)
            reported = raw[some].gather(1, tokens).masked_fill(~asked[:, None], 0.0)
        columns = zip(some, tokens.tolist(), values.tolist(), reported.tolist(), strict=True)
        for place, ids, log_probs, raws in columns:
            aligned = alignments.get(place, ())
            row = zip(ids, log_probs, raws, strict=True)
            found[place] = [Candidate(*each, aligned) for each in row]
    return found


def _stay(target: Target, token: int, step: Step) -> Move:
    """Let every row of a target go on with the same token."""
    return Move(step, target, [token] * len(target.rows), list(target.rows))


def _advance(target: Target, search: Search) -> Move:
    """Let the rows of a target hold what lives after a step of its search."""
    if search.hypotheses:  # nobody reads its rows any more
        return _stay(replace(target, search=search), 0, Step(hypotheses=search.hypotheses))
    # A row without a hypothesis of its own repeats the first one, unread.
    live = [search.live[i if i < len(search.live) else 0] for i in range(len(target.rows))]
    new = search.certain.after(target.certain)
    preview = search.live[0].node.after(target.certain + len(new))
    step = Step(
        tokens=tuple(node.token for node in new),
        scores=tuple(node.log_prob for node in new),
        alignments=tuple(node.alignment for node in new if node.alignment),
        preview=tuple(node.token for node in preview),
    )
    return Move(
        step,
        replace(target, search=search, certain=target.certain + len(new)),
        [hypothesis.node.token for hypothesis in live],
        [target.rows[hypothesis.parent] for hypothesis in live],
    )
