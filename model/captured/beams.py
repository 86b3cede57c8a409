"""Beam search within a step: candidates for the host, and the beams that go on meanwhile.

The host follows one or more steps late, by `BeamSearch.advance`; its word is final. Sums of
log-probabilities are float64 on both sides and ties fall alike, so both go on with the same beams.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.captured.memory import Memory
from model.captured.operations import Likeliest
from model.decoding.choose import likeliest as best_of

_NEVER = float("-inf")


class _Next(NamedTuple):
    """How searches go on, all [searches, beams].

    Attributes:
        rows, parents: rows of the step, or their number: the row of each hypothesis, and the one
            that it comes from.
        tokens: int32.
        scores: -inf where a row holds no hypothesis.
    """

    rows: Tensor
    parents: Tensor
    tokens: Tensor
    scores: Tensor


def search(
    logits: Tensor,
    filtered: Tensor,
    likeliest: Likeliest,
    row_slot: Tensor,
    memory: Memory,
    end: int,
) -> Likeliest:
    """Continue every search of the step; returns the tokens that its rows take.

    Their candidates go to the outbox, their histories to the slots of the rows that take them over.

    Args:
        logits: [rows, vocabulary], of which log-probabilities are made, unless of the filtered.
        filtered: the same, with -inf where a token may not come.
    """
    tokens, log_probs = _candidates(logits, filtered, row_slot, memory)
    count = len(row_slot)
    found = torch.stack([tokens.int(), log_probs.view(torch.int32)])[None]
    cells = memory.candidates[:, :, :count]
    cells.index_copy_(0, memory.outbox.entry.long(), found)
    following = _following(tokens, log_probs, row_slot, memory, end)
    _take_over(following, row_slot, memory)
    taken = torch.cat([likeliest.tokens[:, :1], likeliest.tokens[:1, :1]])  # one row for none
    taken.index_copy_(0, following.rows.flatten(), following.tokens.reshape(-1, 1))
    is_beam = torch.zeros_like(taken, dtype=torch.bool)
    is_beam.index_fill_(0, following.rows.flatten(), True)
    return likeliest._replace(tokens=taken[:count].where(is_beam[:count], likeliest.tokens))


def _candidates(
    logits: Tensor, filtered: Tensor, row_slot: Tensor, memory: Memory
) -> tuple[Tensor, Tensor]:
    """Return the best tokens of each row and their log-probabilities, [rows, width]."""
    slots, slot = memory.slots, row_slot.long()
    values, tokens = best_of(filtered, min(memory.candidates.shape[3], filtered.shape[1]))
    is_own = memory.renormalises[slot][:, None] > 0
    log_probs = filtered.where(is_own, logits).log_softmax(1).gather(1, tokens)
    log_probs = log_probs.masked_fill(values == _NEVER, _NEVER)
    position = slots.position[slot].long()
    last = slots.forced.shape[1] - 1
    forced = slots.forced[slot].gather(1, position.clamp(max=last)[:, None])
    first = torch.zeros_like(log_probs).masked_fill(
        torch.arange(log_probs.shape[1], device=logits.device) > 0, _NEVER
    )
    return forced.long().where(forced >= 0, tokens), first.where(forced >= 0, log_probs)


def _following(
    tokens: Tensor, log_probs: Tensor, row_slot: Tensor, memory: Memory, end: int
) -> _Next:
    """Choose the beams that go on: of the best continuations the first that do not end."""
    count, each = tokens.shape
    slot, beams = row_slot.long(), memory.groups.shape[1] - 1
    groups = memory.groups[: max(count // 2, 1)].long()
    rows, wanted = groups[:, :beams], groups[:, beams:]
    before = _with_none(memory.score[slot], _NEVER)
    totals = before[:, None] + _with_none(log_probs.double(), _NEVER)
    grouped = totals[rows]  # [searches, beams, each]
    is_asked = torch.arange(each, device=tokens.device) < 2 * wanted
    grouped = grouped.masked_fill(~is_asked[:, None], _NEVER).flatten(1)
    scores, places = grouped.sort(dim=1, descending=True, stable=True)
    scores, places = scores[:, : 2 * beams], places[:, : 2 * beams]
    found = _with_none(tokens, end)[rows].flatten(1).gather(1, places)
    rank = torch.arange(scores.shape[1], device=tokens.device)
    goes_on = (rank < 2 * wanted) & (found != end) & (scores > _NEVER)
    order = (~goes_on).int().sort(dim=1, stable=True).indices[:, :beams]
    is_live = goes_on.gather(1, order) & (rank[:beams] < wanted)
    found, scores = found.gather(1, order), scores.gather(1, order)
    parents = rows.gather(1, places.gather(1, order) // each)
    position = memory.slots.position[slot]
    stays = _with_none(position < memory.prefix[slot], False)[rows]
    return _Next(
        rows,
        parents,
        found.where(is_live, found[:, :1]).int(),
        before[rows].where(stays, scores.masked_fill(~is_live, _NEVER)),
    )


def _take_over(following: _Next, row_slot: Tensor, memory: Memory) -> None:
    """Give each row the history and the score of the hypothesis that it goes on with."""
    slot = _with_none(row_slot.long(), len(memory.score) - 1)
    rows = slot[following.rows].flatten()
    goes_on = memory.slots.is_active[rows] > 0  # what has stopped stays as it was
    memory.reorder(rows, slot[following.parents].flatten().where(goes_on, rows))
    scores = following.scores.flatten().where(goes_on, memory.score[rows])
    memory.score.index_copy_(0, rows, scores)


def _with_none(values: Tensor, none: float) -> Tensor:
    """Append one row for places that hold none."""
    return torch.cat([values, values.new_full((1, *values.shape[1:]), none)])
