"""The choice from filtered logits: one token per row, or several candidates of each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.decoding.rows import RowTable

_BLOCK = 64  # columns whose maximum is taken at once


def sample(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, draws: Tensor
) -> Tensor:
    """Draw one token per row.

    Args:
        logits: [rows, vocabulary].
        temperature, top_k, top_p, draws: [rows]; top_k 0 and top_p 1 keep all.

    Returns:
        Token ids [rows]: the first, from the likeliest down, whose cumulated probability exceeds
        the draw. Temperature, then top-k, then top-p (Holtzman et al. 2020), as in transformers.
    """
    # Below zero and away from it, so that no temperature overflows.
    relative = logits - logits.amax(1, keepdim=True)
    scaled = relative / temperature.clamp(min=1e-30)[:, None]
    ordered, tokens = scaled.sort(dim=1, descending=True, stable=True)
    rank = torch.arange(ordered.shape[1], device=logits.device)
    limit = torch.where(top_k > 0, top_k, ordered.shape[1])
    ordered = ordered.masked_fill(rank >= limit[:, None], float("-inf"))
    probability = ordered.softmax(1)
    before = probability.cumsum(1) - probability
    probability = probability.masked_fill((before >= top_p[:, None]) & (rank > 0), 0)
    cumulated = probability.cumsum(1)
    # The last kept token must stay reachable whatever rounding did to the sum.
    wanted = torch.minimum(draws * cumulated[:, -1], cumulated[:, -1] * (1 - 1e-6))
    index = (cumulated > wanted[:, None]).int().argmax(1, keepdim=True)
    return tokens.gather(1, index).squeeze(1)


def choose(logits: Tensor, rows: Sequence[int], table: RowTable) -> tuple[Tensor, Tensor]:
    """Choose for each row as its options say.

    Args:
        logits: filtered, [rows, vocabulary].

    Returns:
        Token ids [rows], and whether each row was healthy: an unhealthy one has a NaN or infinity.
    """
    best, tokens = _maxima(logits)
    healthy = best.isfinite()
    if table.sampling:
        drawing = [place for place, row in enumerate(rows) if row in table.sampling]
        if drawing:
            picked = torch.tensor(drawing, device=logits.device)
            tokens[picked] = _draw(logits[picked], [rows[place] for place in drawing], table)
    return tokens, healthy


def _draw(logits: Tensor, rows: Sequence[int], table: RowTable) -> Tensor:
    """Sample one token per row; rows of equal top-k together, since they sort equally many."""
    by_top_k: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        by_top_k.setdefault(table.options[row].top_k, []).append(place)
    drawn = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    for top_k, places in by_top_k.items():
        some = at(logits, places).nan_to_num(nan=0.0)
        tokens = None
        if top_k:
            some, tokens = likeliest(some, top_k)
        chosen = _draw_from(some, [rows[place] for place in places], table)
        if tokens is not None:
            chosen = tokens.gather(1, chosen[:, None]).squeeze(1)
        drawn[torch.tensor(places, device=logits.device)] = chosen
    return drawn


def _draw_from(logits: Tensor, rows: Sequence[int], table: RowTable) -> Tensor:
    options = [table.options[row] for row in rows]

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=logits.dtype, device=logits.device)

    return sample(
        logits,
        column([o.temperature for o in options]),
        torch.tensor([o.top_k for o in options], device=logits.device),
        column([o.top_p for o in options]),
        column(table.draws(rows)),
    )


def _maxima(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return `logits.max(1)`; NumPy finds where it is seven times as fast as PyTorch does."""
    if not logits.is_cpu:
        best, tokens = logits.max(1)
        return best, tokens
    tokens = torch.from_numpy(logits.numpy().argmax(1))
    return logits.gather(1, tokens[:, None]).squeeze(1), tokens


def likeliest(logits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the values and token ids, [rows, width] or as many as there are, best first.

    Rows of one call must want the same width: which of two equal values comes first depends on it.
    """
    rows, vocabulary = logits.shape
    blocks = vocabulary // _BLOCK
    if width * 4 > blocks:
        values, tokens = logits.topk(min(width, vocabulary), dim=1)
        return values, tokens
    # The best are in the blocks with the best maxima, which are found six times as fast.
    whole = blocks * _BLOCK
    maxima = logits.unfold(1, _BLOCK, _BLOCK).amax(2)
    starts = maxima.topk(width, dim=1).indices * _BLOCK
    within = torch.arange(_BLOCK, device=logits.device)
    columns = (starts[:, :, None] + within).flatten(1)
    rest = torch.arange(whole, vocabulary, device=logits.device).expand(rows, -1)
    columns = torch.cat([columns, rest], 1)
    values, index = logits.gather(1, columns).topk(width, dim=1)
    return values, columns.gather(1, index)


def at(tensor: Tensor, places: Sequence[int]) -> Tensor:
    """Return the rows at ascending `places`; not a copy where they follow each other."""
    if places and len(places) == places[-1] - places[0] + 1:
        return tensor[places[0] : places[-1] + 1]
    return tensor[torch.tensor(places, dtype=torch.long, device=tensor.device)]
