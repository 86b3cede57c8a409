"""Every filter does what transformers' logits processor of the same name does."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from model import DecodingOptions
from model.decoding import filters
from model.decoding.rows import RowTable

VOCABULARY, START, EOS, SUPPRESSED = 12, 11, 0, (11, 4)


def reference(options: DecodingOptions) -> Any:
    processors: list[Any] = []
    if options.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(options.no_repeat_ngram_size))
    processors.append(NoBadWordsLogitsProcessor([[token] for token in SUPPRESSED], EOS))
    if options.min_new_tokens:
        processors.append(
            MinNewTokensLengthLogitsProcessor(1, options.min_new_tokens, EOS, device="cpu")
        )
    return LogitsProcessorList(processors)


def random_options(rng: random.Random) -> DecodingOptions:
    return DecodingOptions(
        max_new_tokens=30,
        min_new_tokens=rng.choice([0, 0, 1, 5, 20]),
        repetition_penalty=rng.choice([1.0, 0.5, 1.2, 3.0]),
        no_repeat_ngram_size=rng.choice([0, 0, 1, 2, 3, 4]),
    )


def table_of(histories: dict[int, list[int]], options: dict[int, DecodingOptions]) -> RowTable:
    table = RowTable(8, 30, START)
    for row, history in histories.items():
        table.occupy(row, options[row])
        for token in history:
            table.append([row], [token])
    return table


def filtered(logits: Tensor, rows: list[int], table: RowTable) -> Tensor:
    logits = logits.clone()
    filters.apply(logits, rows, table, EOS, torch.tensor(SUPPRESSED))
    return logits


@pytest.mark.parametrize("seed", range(60))
def test_mixed_rows_are_filtered_as_the_reference_filters_each_alone(seed: int) -> None:
    rng = random.Random(seed)
    rows = rng.sample(range(8), rng.randint(1, 8))
    options = {row: random_options(rng) for row in rows}
    lengths = {row: rng.randint(0, 29) for row in rows}
    few = rng.randint(2, VOCABULARY)  # few distinct tokens, so that n-grams do repeat
    histories = {row: [rng.randrange(few) for _ in range(lengths[row])] for row in rows}
    logits = torch.randn(len(rows), VOCABULARY, generator=torch.Generator().manual_seed(seed))

    ours = filtered(logits, rows, table_of(histories, options))

    for index, row in enumerate(rows):
        ids = torch.tensor([[START, *histories[row]]])
        expected = reference(options[row])(ids, logits[index : index + 1].clone())
        assert torch.equal(ours[index], expected[0]), (options[row], histories[row])


def test_the_start_token_counts_as_generated() -> None:
    options = DecodingOptions(max_new_tokens=5, repetition_penalty=2.0)
    logits = torch.ones(1, VOCABULARY)

    table = table_of({0: []}, {0: options})
    filters.penalise_repetition(logits, [0], table)

    assert logits[0].tolist() == [1.0] * START + [0.5]


def test_a_row_remembers_nothing_of_the_one_before_it() -> None:
    options = DecodingOptions(max_new_tokens=5, repetition_penalty=2.0, no_repeat_ngram_size=1)
    plain = DecodingOptions(max_new_tokens=5)
    table = table_of({0: [1, 2, 3]}, {0: options})
    table.vacate(0)
    assert repr(table) == "<RowTable 0/8 rows>"
    table.occupy(0, plain)
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0))

    expected = logits.clone()
    expected[0, SUPPRESSED] = float("-inf")

    assert torch.equal(filtered(logits, [0], table), expected)
    assert table.newest[0] == START
