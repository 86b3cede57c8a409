"""Logit filters: each changes `logits` [rows, vocabulary] in place, and only rows that ask for it.

They follow the logits processors of transformers in meaning and order, start token included.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.rows import RowTable

_NEVER = float("-inf")


def penalise_repetition(logits: Tensor, rows: Sequence[int], table: RowTable) -> None:
    """Make tokens that a row has already generated less likely."""
    asked = [(place, row) for place, row in enumerate(rows) if row in table.penalised]
    if not asked:
        return
    places = torch.tensor([place for place, _ in asked], device=logits.device)[:, None]
    penalties = [table.options[row].repetition_penalty for _, row in asked]
    penalty = torch.tensor(penalties, dtype=logits.dtype, device=logits.device)[:, None]
    longest = max(table.decoded[row] for _, row in asked) + 1
    history = table.history[[row for _, row in asked], :longest]
    for line, (_, row) in zip(history, asked, strict=True):
        line[table.decoded[row] + 1 :] = line[0]  # the start token, which has been read as well
    tokens = torch.from_numpy(history).to(logits.device)
    scores = logits[places, tokens]
    logits[places, tokens] = torch.where(scores < 0, scores * penalty, scores / penalty)


def completing_ngrams(history: NDArray[np.int64], size: int) -> list[int]:
    """Return the tokens that would complete an n-gram which `history` already holds."""
    windows = len(history) - size + 1
    if windows < 1:
        return []
    repeats = np.ones(windows, dtype=bool)
    for offset in range(size - 1):
        repeats &= history[offset : offset + windows] == history[windows + offset]
    found: list[int] = history[size - 1 :][repeats].tolist()
    return found


def forbidden(row: int, table: RowTable, eos: int) -> list[int]:
    """Return what `row` may not hold next: its own suppressed tokens, n-grams, an early end."""
    options, decoded = table.options[row], table.decoded[row]
    tokens = [*options.suppressed]
    if options.no_repeat_ngram_size:
        history = table.history[row, : decoded + 1]
        tokens += completing_ngrams(history, options.no_repeat_ngram_size)
    if decoded < len(options.target_prefix) + options.min_new_tokens:
        tokens.append(eos)
    return tokens


def restrict(logits: Tensor, rows: Sequence[int], table: RowTable, eos: int) -> None:
    """Forbid each row what it may not hold next."""
    places: list[int] = []
    tokens: list[int] = []
    for place, row in enumerate(rows):
        if row in table.restricted:
            found = forbidden(row, table, eos)
            places += [place] * len(found)
            tokens += found
    if tokens:
        index = torch.tensor([places, tokens], device=logits.device)
        logits[index[0], index[1]] = _NEVER


def force(logits: Tensor, forced: Sequence[tuple[int, int]]) -> None:
    """Leave rows no choice but a token, with the score that transformers gives it.

    A row that is not finite stays so: its health is judged by what the filters leave.

    Args:
        forced: place and token.
    """
    index = torch.tensor(forced, device=logits.device)
    places, tokens = index[:, 0], index[:, 1]
    is_finite = logits[places].amax(1).isfinite()
    logits[places] = _NEVER
    logits[places, tokens] = torch.where(is_finite, 0.0, float("nan")).to(logits.dtype)


def forced_now(rows: Sequence[int], table: RowTable) -> list[tuple[int, int]]:
    """Return place and token of the rows that have no choice."""
    if not table.forced:
        return []
    found = []
    for place, row in enumerate(rows):
        token = table.forced.get(row, {}).get(table.decoded[row])
        if token is not None:
            found.append((place, token))
    return found


def apply(
    logits: Tensor, rows: Sequence[int], table: RowTable, eos: int, suppressed: Tensor
) -> None:
    """Apply every filter that any of these rows asks for.

    Args:
        suppressed: tokens that no row may hold, int64.
    """
    if table.penalised:
        penalise_repetition(logits, rows, table)
    if len(suppressed):
        logits.index_fill_(1, suppressed, _NEVER)
    if table.restricted:
        restrict(logits, rows, table, eos)
    if forced := forced_now(rows, table):
        force(logits, forced)
