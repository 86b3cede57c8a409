from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from model import DecodingOptions

NAN, INF = float("nan"), float("inf")
_NEEDS_BEAMS = (
    "phrases take a beam search: send num_beams above 1, and neither a temperature nor alternatives"
)
_DOES_NOT_FIT = (
    "phrases of {} tokens do not fit into 9 new ones beside what else must come; send a larger "
    "max_new_tokens, or fewer phrases"
)


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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"phrases": ((5,), ())}, "a phrase must not be empty"),
        ({"phrases": ((5,),) * 33, "max_new_tokens": 40}, "at most 32 phrases are allowed"),
        ({"phrases": ((5, 6),), "num_beams": 1}, _NEEDS_BEAMS),
        ({"phrases": ((5, 6),), "num_beams": 1, "alternatives": 2}, _NEEDS_BEAMS),
        ({"phrases": ((5, 6),), "num_beams": 1, "temperature": 1.0}, _NEEDS_BEAMS),
        ({"phrases": ((5,) * 5, (6,) * 4)}, _DOES_NOT_FIT.format(9)),
        ({"phrases": ((5,) * 8,), "forced_bos": 9}, _DOES_NOT_FIT.format(8)),
        (
            {"phrases": ((5, 6),), "suppressed": (7, 6)},
            "a phrase holds token 6, which is suppressed: leave it out of one of them",
        ),
        (
            {"phrases": ((5, 6),), "stop": ("x",)},
            "a stop string could cut a phrase off: leave out stop, or the phrases",
        ),
    ],
)
def test_phrases_that_no_search_could_write_are_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        DecodingOptions(**{"max_new_tokens": 9, "num_beams": 4} | changes)

    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    "edge",
    [
        {"phrases": ((5,) * 8,)},
        {"phrases": ((5,) * 8,), "forced_bos": 9, "target_prefix": (9,)},
        {"phrases": ((5,) * 7,), "forced_bos": 9, "forced_eos": 0},
        {"phrases": ((5,),) * 32, "max_new_tokens": 33},
    ],
)
def test_the_longest_phrases_that_fit_are_accepted(edge: dict[str, Any]) -> None:
    options = DecodingOptions(**{"max_new_tokens": 9, "num_beams": 2} | edge)

    assert options.phrases == edge["phrases"]


def test_options_never_change_once_verified() -> None:
    options = DecodingOptions(max_new_tokens=9)

    with pytest.raises(FrozenInstanceError):
        options.max_new_tokens = 0  # type: ignore[misc]
