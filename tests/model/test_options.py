from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from model import DecodingOptions

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, below 2^31"),
        ({"min_new_tokens": -1}, "min_new_tokens must not be negative"),
        ({"min_new_tokens": 10}, "min_new_tokens 10 > max_new_tokens 9"),
        ({"temperature": -0.1}, "temperature must be between 0 and 100"),
        ({"temperature": 100.1}, "temperature must be between 0 and 100"),
        ({"temperature": NAN}, "temperature must be between 0 and 100"),
        ({"temperature": INF}, "temperature must be between 0 and 100"),
        ({"top_k": -1}, "top_k must not be negative, and below 2^31"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
        ({"top_p": NAN}, "top_p must be above 0 and at most 1"),
        ({"seed": -1}, "seed must be between 0 and 2^64 - 1"),
        ({"seed": 2**64}, "seed must be between 0 and 2^64 - 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be between 0.01 and 100"),
        ({"repetition_penalty": 101.0}, "repetition_penalty must be between 0.01 and 100"),
        ({"repetition_penalty": NAN}, "repetition_penalty must be between 0.01 and 100"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must not be negative, and below 2^31"),
        ({"stop": ("x",) * 17}, "at most 16 stop strings are allowed"),
        ({"stop": ("x", "")}, "a stop string must not be empty, nor longer than 256 characters"),
    ],
)
def test_an_impossible_value_is_refused_with_a_sentence(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        DecodingOptions(**{"max_new_tokens": 9} | changes)

    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    "edge",
    [
        {"max_new_tokens": 1},
        {"min_new_tokens": 9},
        {"temperature": 100.0, "top_p": 1.0, "seed": 2**64 - 1},
        {"repetition_penalty": 100.0, "stop": ("x",) * 16},
    ],
)
def test_the_last_possible_value_is_accepted(edge: dict[str, Any]) -> None:
    options = DecodingOptions(**{"max_new_tokens": 9} | edge)

    assert options.samples == (options.temperature > 0)


def test_options_never_change_once_verified() -> None:
    options = DecodingOptions(max_new_tokens=9)

    with pytest.raises(FrozenInstanceError):
        options.max_new_tokens = 0  # type: ignore[misc]
