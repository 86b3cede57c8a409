"""What a checkpoint asks of decoding is done, or refused by name; the fields are transformers'."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from model import UnsupportedModel
from model.generation_config import defaults, special_tokens

TOKENS = {"decoder_start_token_id": 2, "eos_token_id": 2, "bos_token_id": 0}
OLD_BART = {  # as published before generation_config.json
    "early_stopping": True,
    "force_bos_token_to_be_generated": True,
    "forced_eos_token_id": 2,
    "length_penalty": 2.0,
    "max_length": 142,
    "min_length": 56,
    "no_repeat_ngram_size": 3,
    "num_beams": 4,
    "task_specific_params": {"summarization": {"num_beams": 7}},
}


def test_every_default_is_read() -> None:
    asked = {
        "do_sample": False,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
        "num_beams": 4,
        "num_return_sequences": 2,
        "length_penalty": 0.6,
        "early_stopping": "never",
        "renormalize_logits": True,
        "max_length": 60,
        "min_length": 5,
    }

    assert defaults({}, asked).given() == asked


def test_a_file_that_says_nothing_gives_nothing() -> None:
    assert defaults({"num_beams": 9}, TOKENS).given() == {}


def test_new_tokens_win_over_lengths_as_in_the_reference() -> None:
    lengths = {"max_length": 60, "max_new_tokens": 90, "min_length": 8, "min_new_tokens": 3}

    given = defaults({}, lengths).given()

    assert given == {"max_new_tokens": 90, "min_new_tokens": 3}


def test_sampling_without_top_k_is_the_references_sampling() -> None:
    assert defaults({}, {"do_sample": True}).top_k == 50
    assert defaults({}, {"do_sample": True, "top_k": 0}).top_k == 0


def test_config_json_counts_only_where_there_is_no_generation_config_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TOKENS | OLD_BART))
    theirs: Any = GenerationConfig.from_pretrained(
        tmp_path, config_file_name="config.json", _from_model_config=True
    )

    ours = defaults(TOKENS | OLD_BART, {})
    tokens = special_tokens(TOKENS | OLD_BART, {})

    names = ("early_stopping", "length_penalty", "no_repeat_ngram_size", "num_beams")
    for name in (*names, "max_length", "min_length"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours.max_length, ours.min_length) == (142, 56)
    assert (tokens.forced_bos, tokens.forced_eos) == (0, 2)
    assert (theirs.forced_bos_token_id, theirs.forced_eos_token_id) == (0, 2)
    assert defaults(TOKENS | OLD_BART, TOKENS).given() == {}
    assert special_tokens(TOKENS | OLD_BART, TOKENS).forced_eos is None


def test_the_first_token_of_all_is_the_start_or_else_bos() -> None:
    assert special_tokens({}, {"eos_token_id": [1], "bos_token_id": 5}).start == 5
    with pytest.raises(UnsupportedModel, match="decoder_start_token_id is missing"):
        special_tokens({}, {"eos_token_id": 1})
    with pytest.raises(UnsupportedModel, match="eos_token_id is missing"):
        special_tokens({}, {"decoder_start_token_id": 1})


def test_suppressed_tokens_are_collected_and_the_end_is_never_among_bad_words() -> None:
    words = {"bad_words_ids": [[7], [2], [8]], "suppress_tokens": [8, 9]}

    assert special_tokens({}, TOKENS | words).suppressed == (7, 8, 9)


REFUSED: dict[str, Any] = {
    "begin_suppress_tokens": [5],
    "bad_words_ids": [[3, 4]],
    "diversity_penalty": 0.5,
    "encoder_no_repeat_ngram_size": 3,
    "encoder_repetition_penalty": 1.2,
    "epsilon_cutoff": 0.1,
    "eta_cutoff": 0.1,
    "exponential_decay_length_penalty": [5, 1.1],
    "force_words_ids": [[5]],
    "guidance_scale": 2.0,
    "min_p": 0.1,
    "num_beam_groups": 2,
    "penalty_alpha": 0.6,
    "remove_invalid_values": True,
    "renormalize_logits": "yes",
    "sequence_bias": [[[5], 1.0]],
    "stop_strings": ["."],
    "top_h": 0.4,
    "typical_p": 0.9,
    "watermarking_config": {"bias": 2.0},
    "eos_token_id": [2, 5],
    "max_length": "60",
    "num_beams": 4.5,
    "length_penalty": "long",
    "do_sample": "yes",
    "early_stopping": "sometimes",
    "forced_bos_token_id": "de",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_tokens_and_is_not_done_is_refused_by_name(name: str) -> None:
    asked = TOKENS | {name: REFUSED[name]}

    with pytest.raises(UnsupportedModel, match=name):
        (defaults({}, asked), special_tokens({}, asked))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"do_sample": True, "num_beams": 4}, "do_sample with num_beams 4"),
        ({"do_sample": True, "temperature": 0.0}, "temperature 0"),
        ({"do_sample": True, "top_p": 0.0}, "top_p must be"),
        ({"num_beams": 65}, "num_beams must be"),
        ({"num_beams": 2, "length_penalty": float("nan")}, "length_penalty must be"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty must be"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must"),
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"max_length": 1}, "max_new_tokens must be"),
    ],
)
def test_what_would_fail_every_request_is_refused_once(asked: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        defaults({}, TOKENS | asked)


def test_options_of_sampling_without_it_are_accepted_whatever_they_are() -> None:
    asked = {"do_sample": False, "num_beams": 4, "temperature": 0.0, "top_p": 0.0}

    assert defaults({}, TOKENS | asked).given() == asked


def test_neutral_values_are_accepted_as_published_files_hold_them() -> None:
    neutral = {
        "bad_words_ids": None,
        "begin_suppress_tokens": None,
        "diversity_penalty": 0.0,
        "encoder_no_repeat_ngram_size": 0,
        "encoder_repetition_penalty": 1.0,
        "epsilon_cutoff": 0.0,
        "guidance_scale": 1,
        "num_beam_groups": 1,
        "remove_invalid_values": False,
        "typical_p": 1.0,
        "use_cache": True,
    }

    assert defaults({}, neutral).given() == {}
