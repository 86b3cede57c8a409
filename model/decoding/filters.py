"""Logit filters: each changes `logits` [rows, vocabulary] in place, all rows at once.

They follow the logits processors of transformers in meaning and order, start token included.
"""

import torch
from torch import Tensor

from model.decoding.options import DecodingOptions
from model.decoding.rows import RowTable

_NEVER = float("-inf")


def penalise_repetition(logits: Tensor, rows: Tensor, table: RowTable) -> None:
    """Make tokens that a row has already generated less likely."""
    penalty = table.repetition_penalty[rows][:, None]
    history = table.history[rows]
    scores = logits.gather(1, history)
    logits.scatter_(1, history, torch.where(scores < 0, scores * penalty, scores / penalty))


def forbid_repeated_ngrams(logits: Tensor, row: int, index: int, table: RowTable) -> None:
    """Forbid in `logits[index]` what would complete an n-gram that `row` already holds."""
    size, length = int(table.ngram[row]), int(table.lengths[row]) + 1
    if length < size:
        return
    windows = table.history[row, :length].unfold(0, size, 1)
    ending = table.history[row, length - size + 1 : length]
    repeats = (windows[:, :-1] == ending).all(1)
    logits[index, windows[repeats, -1]] = _NEVER


def forbid_early_end(logits: Tensor, rows: Tensor, table: RowTable, eos: int) -> None:
    """Forbid the end of a target that is shorter than its minimum."""
    logits[table.lengths[rows] < table.min_lengths[rows], eos] = _NEVER


def force(logits: Tensor, index: int, token: int) -> None:
    """Leave `logits[index]` no choice but `token`, with the score that transformers gives it.

    A row that is not finite stays so: its health is judged by what the filters leave.
    """
    is_finite = logits[index].amax().isfinite()
    logits[index] = _NEVER
    logits[index, token] = torch.where(is_finite, 0.0, float("nan"))


def apply(
    logits: Tensor, rows: Tensor, row_list: list[int], table: RowTable, eos: int, suppressed: Tensor
) -> None:
    """Apply every filter that any of these rows asks for."""
    options = [table.options[row] for row in row_list]
    if any(o.repetition_penalty != 1 for o in options):
        penalise_repetition(logits, rows, table)
    for index, row in enumerate(row_list):
        if options[index].no_repeat_ngram_size:
            forbid_repeated_ngrams(logits, row, index, table)
        if options[index].suppressed:
            logits[index, list(options[index].suppressed)] = _NEVER
    logits[:, suppressed] = _NEVER
    if any(o.min_new_tokens for o in options):
        forbid_early_end(logits, rows, table, eos)
    for index, row in enumerate(row_list):
        if (token := _forced(options[index], table.decoded[row])) is not None:
            force(logits, index, token)


def _forced(options: DecodingOptions, position: int) -> int | None:
    """Return the token that must come after `position` tokens, prefix included."""
    last = len(options.target_prefix) + options.max_new_tokens - 1
    if position == last and options.forced_eos is not None:
        return options.forced_eos
    return options.forced_bos if position == 0 else None
