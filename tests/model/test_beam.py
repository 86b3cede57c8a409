"""Beam search finds what `generate` of transformers finds, hypothesis for hypothesis."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from model import DecodingOptions, Hypothesis, Model, load
from tests.model.driver import Request, random_source, run_together

EOS, PAD, VOCABULARY = 0, 8002, 8003


@pytest.fixture(scope="module")
def ours(tiny_folder: Path) -> Model:
    return load(tiny_folder, slots=24, latent_bytes=0, precision="float32")


@pytest.fixture(scope="module")
def theirs(tiny_folder: Path) -> Any:
    return transformers.MarianMTModel.from_pretrained(tiny_folder, dtype=torch.float32)


def reference(model: Any, source: tuple[int, ...], **options: Any) -> list[tuple[list[int], float]]:
    out = model.generate(
        torch.tensor([source]),
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    prompt = len(options.get("decoder_input_ids", [[0]])[0])
    return [
        ([token for token in row[prompt:].tolist() if token not in (EOS, PAD)], score)
        for row, score in zip(out.sequences, out.sequences_scores.tolist(), strict=True)
    ]


def shape(hypotheses: tuple[Hypothesis, ...]) -> list[list[int]]:
    return [[*hypothesis.tokens] for hypothesis in hypotheses]


def sources(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [random_source(rng, VOCABULARY, rng.randint(1, 30)) for _ in range(count)]


CASES: list[dict[str, Any]] = [
    {},
    {"length_penalty": 2.0},
    {"length_penalty": 0.0},
    {"length_penalty": -1.0},
    {"early_stopping": True},
    {"early_stopping": True, "length_penalty": 0.6},
    {"early_stopping": "never"},
    {"early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 2},
    {"num_beams": 7},
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.4},
    {"min_new_tokens": 12},
    {"forced_bos": 17},
    {"forced_bos": 17, "early_stopping": True},
    {"forced_bos": 17, "early_stopping": True, "length_penalty": -1.0},
    {"forced_bos": 17, "num_beams": 7, "length_penalty": 0.0},
    {"forced_eos": 0},
    {"forced_bos": 17, "forced_eos": 0, "length_penalty": 2.0, "early_stopping": True},
    {"suppressed": (5, 6, 7, 900)},
    {"renormalises": True, "no_repeat_ngram_size": 1, "repetition_penalty": 0.7},
    {"renormalises": True, "forced_bos": 17, "forced_eos": 0},
    {"target_prefix": (44, 9, 1200)},
    {"max_new_tokens": 1},
    {"max_new_tokens": 3},
]
_NAMES = {
    "forced_bos": "forced_bos_token_id",
    "forced_eos": "forced_eos_token_id",
    "suppressed": "suppress_tokens",
    "renormalises": "renormalize_logits",
}


def both(case: dict[str, Any]) -> tuple[DecodingOptions, dict[str, Any]]:
    """The same options as we and as transformers call them."""
    case = {"max_new_tokens": 24, "num_beams": 4} | case
    theirs = {_NAMES.get(key, key): value for key, value in case.items()}
    if prefix := theirs.pop("target_prefix", None):
        theirs["decoder_input_ids"] = torch.tensor([[PAD, *prefix]])
    if "suppress_tokens" in theirs:
        theirs["suppress_tokens"] = [*theirs["suppress_tokens"]]
    wanted = case["num_beams"]
    return (
        DecodingOptions(**case, num_hypotheses=wanted),
        theirs | {"num_return_sequences": wanted},
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_hypotheses_are_those_of_transformers(
    ours: Model, theirs: Any, case: dict[str, Any]
) -> None:
    options, theirs_options = both(case)
    requests = [Request(source, options) for source in sources(5)]

    outcomes = run_together(ours.runner, requests, random.Random(1))

    for request, outcome in zip(requests, outcomes, strict=True):
        expected = reference(theirs, request.source, **theirs_options)
        assert shape(outcome.hypotheses) == [tokens for tokens, _ in expected]
        scores = [hypothesis.score for hypothesis in outcome.hypotheses]
        assert scores == pytest.approx([score for _, score in expected], abs=2e-4, rel=1e-5)


def test_the_cases_reach_ends_of_every_kind(ours: Model) -> None:
    options = DecodingOptions(max_new_tokens=24, num_beams=4, num_hypotheses=4)
    outcomes = run_together(
        ours.runner, [Request(source, options) for source in sources(8)], random.Random(1)
    )
    found = [hypothesis for outcome in outcomes for hypothesis in outcome.hypotheses]

    assert {hypothesis.finish for hypothesis in found} == {"stop", "length"}
    assert len({len(hypothesis.tokens) for hypothesis in found}) > 6


def test_what_is_impossible_is_no_hypothesis_where_transformers_repeats_one(
    ours: Model, theirs: Any
) -> None:
    case = {"forced_bos": 17, "max_new_tokens": 1}
    options, theirs_options = both(case)
    (source,) = sources(1)

    (outcome,) = run_together(ours.runner, [Request(source, options)], random.Random(1))

    assert [(h.tokens, h.score) for h in outcome.hypotheses] == [((17,), 0.0)]
    best, *others = reference(theirs, source, **theirs_options)
    assert best == ([17], 0.0)
    assert all(score < -1e8 for _, score in others)
