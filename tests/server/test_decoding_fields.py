from typing import Any

import pytest

from model import DecodingOptions
from server.decoding_fields import DecodingFields
from server.errors import InvalidRequest


def options(sent: dict[str, Any], defaults: dict[str, Any] | None = None) -> DecodingOptions:
    fields = DecodingFields(**sent).verified(defaults or {}, 100)
    return fields.options(source_tokens=10, limit=100, defaults=defaults or {}, wants_scores=False)


@pytest.mark.parametrize(
    ("sent", "defaults", "samples"),
    [
        ({}, {}, False),
        ({"temperature": 0}, {}, False),
        ({"temperature": 0.7}, {}, True),
        ({"do_sample": True}, {}, True),
        ({"do_sample": False, "temperature": 0.7}, {}, False),
        ({}, {"do_sample": True}, True),
        ({"do_sample": False}, {"do_sample": True}, False),
        ({"temperature": 0}, {"do_sample": True}, False),
        ({"do_sample": None, "temperature": None}, {}, False),
    ],
)
def test_when_tokens_are_sampled(
    sent: dict[str, Any], defaults: dict[str, Any], samples: bool
) -> None:
    assert options(sent, defaults).samples is samples


@pytest.mark.parametrize("name", ["top_k", "top_p", "seed"])
@pytest.mark.parametrize("without", [{}, {"temperature": 0}, {"do_sample": False}])
def test_what_only_sampling_reads_is_refused_without_it(name: str, without: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} has no effect"):
        options({name: 1, **without})


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, 52),  # 2 x 10 + 32
        ({"max_new_tokens": 7}, 7),
        ({"max_new_tokens": 100}, 100),
        ({"min_new_tokens": 80}, 80),
    ],
)
def test_how_long_a_target_may_become(sent: dict[str, Any], expected: int) -> None:
    assert options(sent).max_new_tokens == expected


def test_own_values_win_over_the_models_defaults() -> None:
    defaults = {
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "top_k": 9,
        "temperature": 2.0,
    }
    assert options({}, defaults).repetition_penalty == 1.3
    assert options({"repetition_penalty": 1}, defaults).repetition_penalty == 1
    assert options({}, defaults).no_repeat_ngram_size == 3
    assert options({}, defaults).top_k == 0  # not sampled
    sampled = options({"do_sample": True}, defaults)
    assert (sampled.top_k, sampled.temperature) == (9, 2.0)


def test_without_a_seed_each_request_draws_its_own() -> None:
    assert options({"temperature": 1}).seed != options({"temperature": 1}).seed
    assert options({"temperature": 1, "seed": 3}).seed == 3


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"num_beams": 2}, "num_beams above 1 is not supported yet"),
        ({"max_new_tokens": 101}, "at most 100"),
        ({"do_sample": True, "temperature": 0}, "do_sample needs a temperature above 0"),
        ({"temperature": -0.1}, "must not be negative"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens 9 >"),
        ({"seed": -1, "temperature": 1}, "seed must be between"),
    ],
)
def test_contradictions_are_refused(sent: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        options(sent)
