"""Sampling keeps what transformers keeps, and spreads the draws by probability."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from model import DecodingOptions
from model.decoding.choose import choose, likeliest, sample
from model.decoding.rows import RowTable, uniform


def random_logits(seed: int, rows: int = 1, vocabulary: int = 50) -> Tensor:
    return 2 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def draw(logits: Tensor, draws: Tensor, *, temperature: float, top_k: int, top_p: float) -> Tensor:
    rows = len(draws)
    return sample(
        logits.expand(rows, -1),
        torch.full((rows,), temperature),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p),
        draws,
    )


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, 80])
@pytest.mark.parametrize("top_p", [0.05, 0.6, 0.95, 1.0])
def test_each_kept_token_owns_its_share_of_the_draws(
    temperature: float, top_k: int, top_p: float
) -> None:
    logits = random_logits(seed=top_k)
    logits[0, :3] = float("-inf")  # filtered before
    warpers: Any = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    probability, tokens = warpers(None, logits).softmax(1)[0].sort(descending=True)
    kept = int((probability > 1e-5).sum())
    ends = probability.cumsum(0)[:kept]
    width = probability[:kept]

    for within in (0.01, 0.5, 0.99):
        draws = ends - width * (1 - within)
        chosen = draw(logits, draws, temperature=temperature, top_k=top_k, top_p=top_p)
        assert torch.equal(chosen, tokens[:kept])


def test_a_grid_of_draws_reproduces_the_distribution() -> None:
    logits = random_logits(seed=1, vocabulary=8)
    draws = (torch.arange(20_000) + 0.5) / 20_000

    chosen = draw(logits, draws, temperature=1.0, top_k=0, top_p=1.0)

    share = torch.bincount(chosen, minlength=8) / len(draws)
    torch.testing.assert_close(share, logits[0].softmax(0), rtol=0, atol=2e-4)


@pytest.mark.parametrize("last", [1 - 2**-24, 1.0])
def test_the_largest_draw_takes_the_last_kept_token(last: float) -> None:
    logits = random_logits(seed=2)

    chosen = draw(logits, torch.tensor([last]), temperature=1.0, top_k=5, top_p=1.0)

    assert chosen.item() == logits[0].topk(5).indices[-1].item()


def test_a_filtered_token_is_never_drawn() -> None:
    logits = torch.full((1, 5), float("-inf"))
    logits[0, 3] = -4.0

    draws = torch.linspace(0, 1, 101)

    assert set(draw(logits, draws, temperature=9.0, top_k=0, top_p=1.0).tolist()) == {3}


def test_rows_with_different_options_are_drawn_together_as_alone() -> None:
    logits = random_logits(seed=3, rows=6)
    temperature, top_p = torch.rand(2, 6, generator=torch.Generator().manual_seed(0)) + 0.05
    top_p.clamp_(max=1)
    top_k = torch.tensor([0, 1, 2, 30, 50, 99])
    draws = torch.linspace(0.05, 0.95, 6)

    together = sample(logits, temperature, top_k, top_p, draws)

    for row in range(6):
        one = slice(row, row + 1)
        alone = sample(logits[one], temperature[one], top_k[one], top_p[one], draws[one])
        assert alone[0] == together[row]


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-38, 1e-42, 1e-60])
@pytest.mark.parametrize("shift", [-20.0, 20.0])
def test_a_vanishing_temperature_takes_the_likeliest(temperature: float, shift: float) -> None:
    options = DecodingOptions(max_new_tokens=3, temperature=temperature)
    table = RowTable(1, 3, 0)
    table.occupy(0, options)
    logits = random_logits(seed=4) + shift

    tokens, healthy = choose(logits, [0], table)

    assert tokens.tolist() == logits.argmax(1).tolist()
    assert healthy.tolist() == [True]


def test_greedy_and_sampling_rows_share_a_batch_and_only_the_unhealthy_one_is_marked() -> None:
    table = RowTable(4, 3, 0)
    for row in range(4):
        table.occupy(row, DecodingOptions(max_new_tokens=3, temperature=float(row % 2)))
    logits = random_logits(seed=5, rows=4)
    clean, _ = choose(logits.clone(), [0, 1, 2, 3], table)
    logits[1, 7] = float("nan")
    logits[2] = float("-inf")

    tokens, healthy = choose(logits, [0, 1, 2, 3], table)

    assert healthy.tolist() == [True, False, False, True]
    assert (tokens[0], tokens[3]) == (clean[0], clean[3])
    assert clean[0] == logits[0].argmax()


def test_uniform_numbers_are_uniform_over_positions_and_over_seeds() -> None:
    by_position = [uniform(42, position) for position in range(10_000)]
    by_seed = [uniform(seed, 0) for seed in range(10_000)]

    for numbers in (by_position, by_seed):
        counts = torch.histc(torch.tensor(numbers), bins=20, min=0, max=1)
        assert min(numbers) >= 0
        assert max(numbers) < 1
        assert len(set(numbers)) == 10_000
        assert ((counts - 500) ** 2 / 500).sum() < 43.8  # chi-square, 19 degrees, p = 0.001


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_a_uniform_number_depends_on_seed_and_position_alone(seed: int) -> None:
    assert uniform(seed, 3) == uniform(seed, 3)
    assert uniform(seed, 3) != uniform(seed, 4)
    assert uniform(seed, 3) != uniform(seed ^ 1, 3)


@pytest.mark.parametrize("vocabulary", [5, 64, 2_000, 2_048, 5_003])
@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("rows", [1, 9])
def test_the_likeliest_are_the_best_of_all(vocabulary: int, width: int, rows: int) -> None:
    logits = random_logits(seed=width, rows=rows, vocabulary=vocabulary)
    logits[:, vocabulary // 2 :] += 1  # some of the best are in the last, shorter block
    logits[0, 3:] = float("-inf")
    logits[-1, 2] = float("nan")

    values, tokens = likeliest(logits, width)
    expected = logits.topk(min(width, vocabulary), dim=1)

    torch.testing.assert_close(values, expected.values, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(logits.gather(1, tokens), values, rtol=0, atol=0, equal_nan=True)
    assert all(len({*line}) == len(line) for line in tokens.tolist())


def test_of_several_maxima_a_greedy_row_takes_the_first() -> None:
    table = RowTable(1, 3, 0)
    table.occupy(0, DecodingOptions(max_new_tokens=3))
    logits = torch.zeros(1, 300)
    logits[0, [17, 18, 250]] = 1.0

    assert choose(logits, [0], table)[0].tolist() == [17]


def test_rows_of_any_top_k_draw_what_sampling_from_all_tokens_gives() -> None:
    top_ks, top_p = [3, 0, 50, 3, 1, 9_999], 0.9
    table = RowTable(6, 3, 0)
    for row, top_k in enumerate(top_ks):
        options = DecodingOptions(
            max_new_tokens=3, temperature=0.7, top_k=top_k, top_p=top_p, seed=row
        )
        table.occupy(row, options)
    logits = random_logits(seed=6, rows=6, vocabulary=5_003)

    tokens, _ = choose(logits, list(range(6)), table)

    expected = sample(
        logits,
        torch.full((6,), 0.7),
        torch.tensor(top_ks),
        torch.full((6,), top_p),
        torch.tensor(table.draws(range(6))),
    )
    assert tokens.tolist() == expected.tolist()
