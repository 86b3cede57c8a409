from typing import Any

import pytest

from model import DecodingOptions
from server.decoding_fields import DecodingFields, Demand
from server.errors import InvalidRequest


def options(sent: dict[str, Any], defaults: dict[str, Any] | None = None) -> DecodingOptions:
    fields = DecodingFields(**sent).verified(defaults or {}, 100)
    return fields.options(Demand(source_tokens=10), limit=100, defaults=defaults or {})


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
        ({"num_beams": 0}, "num_beams must be between 1 and 64"),
        ({"num_beams": 4, "temperature": 0.5}, "send only one of them"),
        ({"num_beams": 4, "num_return_sequences": 5}, "between 1 and num_beams"),
        ({"num_beams": 4, "num_return_sequences": 2, "stop": "."}, "leave out num_return"),
        ({"num_beams": 4, "length_penalty": 11}, "length_penalty must be between"),
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


@pytest.mark.parametrize("name", ["length_penalty", "early_stopping", "num_return_sequences"])
def test_what_only_beam_search_reads_is_refused_without_it(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} has no effect without beam search"):
        options({name: 2 if name == "num_return_sequences" else True})


def test_the_models_own_beams_are_searched_unless_a_request_says_otherwise() -> None:
    defaults = {"num_beams": 6, "length_penalty": 2.0, "early_stopping": True}

    assert options({}, defaults | {"renormalize_logits": True}).renormalises
    searched = options({}, defaults)
    assert not searched.renormalises
    assert (searched.num_beams, searched.length_penalty, searched.early_stopping) == (6, 2.0, True)
    assert options({"num_beams": 1}, defaults).num_beams == 1
    assert options({"num_beams": 2}, defaults).length_penalty == 2.0
    assert options({"temperature": 0.5}, defaults).num_beams == 1


def test_the_models_own_lengths_hold_unless_a_request_says_otherwise() -> None:
    defaults = {"max_new_tokens": 60, "min_new_tokens": 20}

    assert options({}, defaults).max_new_tokens == 60
    assert options({"max_new_tokens": 70}, defaults).max_new_tokens == 70
    assert options({"max_new_tokens": 9}, defaults).min_new_tokens == 9
    assert options({"min_new_tokens": 0}, defaults).min_new_tokens == 0


def test_the_models_own_lengths_count_the_start_token_and_a_prefix() -> None:
    defaults = {"max_length": 12, "min_length": 8}
    fields = DecodingFields()

    def chosen(prefix: int) -> DecodingOptions:
        demand = Demand(target_prefix=(1,) * prefix)
        return fields.options(demand, limit=100, defaults=defaults)

    assert (chosen(0).max_new_tokens, chosen(0).min_new_tokens) == (11, 7)
    assert (chosen(3).max_new_tokens, chosen(3).min_new_tokens) == (8, 4)
    assert (chosen(10).max_new_tokens, chosen(10).min_new_tokens) == (1, 0)
    with pytest.raises(InvalidRequest, match="own max_length 12; send max_new_tokens"):
        chosen(11)
    with pytest.raises(InvalidRequest, match="min_new_tokens must not be negative"):
        options({"min_new_tokens": -1}, defaults)


def test_forced_tokens_of_the_model_yield_to_what_a_request_needs() -> None:
    defaults = {"forced_bos_token_id": 4, "forced_eos_token_id": 2}
    fields = DecodingFields()

    def chosen(**demand: Any) -> DecodingOptions:
        return fields.options(Demand(**demand), limit=100, defaults=defaults)

    assert (chosen().forced_bos, chosen().forced_eos) == (4, 2)
    assert chosen(forced_bos=7).forced_bos == 7
    assert chosen(target_prefix=(1,) * 80).max_new_tokens == 20
    with pytest.raises(InvalidRequest, match="leaves no room"):
        chosen(target_prefix=(1,) * 100)


@pytest.mark.parametrize(
    ("sent", "alignments"),
    [
        (None, None),
        (False, None),
        ("false", None),
        (True, "average"),
        ("true", "average"),
        ("average", "average"),
        (0, 0),
        (1, 1),
        ("0", 0),
        ("1", 1),
        (1.0, 1),
    ],
)
def test_alignments_are_the_average_or_a_layer_also_from_a_form(
    sent: Any, alignments: str | int | None
) -> None:
    chosen = options({"alignments": sent}).alignments

    assert (chosen, type(chosen)) == (alignments, type(alignments))
    assert DecodingFields(alignments=sent).wants_alignments is (alignments is not None)


def test_a_number_of_hypotheses_that_makes_no_sense_is_not_taken_for_one() -> None:
    assert options({"num_beams": 2, "num_return_sequences": None}).num_hypotheses == 1
    for wrong in (0, -1, 3):
        with pytest.raises(InvalidRequest, match="num_return_sequences must be between 1 and"):
            options({"num_beams": 2, "num_return_sequences": wrong})
