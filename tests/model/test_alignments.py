"""Alignments are the cross-attention of transformers, of the tokens that are returned."""

import random
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from model import DecodingOptions, Runner
from model.building import build
from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.transformer import EncoderDecoder, Memory
from tests.model.driver import Outcome, Request, random_source, run_alone, run_together
from tests.model.networks import randomise, tiny_config, tiny_network
from tests.model.reference import random_sources, reference, write

WANTED = pytest.mark.parametrize("wanted", ["average", 0, 1], ids=str)


@pytest.fixture(scope="module", params=["marian", "t5"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(request.param, tmp_path_factory.mktemp(request.param))


@torch.inference_mode()
def expected(model: Any, source: tuple[int, ...], target: list[int], wanted: str | int) -> Tensor:
    """[target, source]: what each token of `target` looks at, in one forced forward pass."""
    model.set_attn_implementation("eager")
    inputs = [model.config.decoder_start_token_id, *target[:-1]]
    layers = model(
        input_ids=torch.tensor([source]),
        decoder_input_ids=torch.tensor([inputs]),
        output_attentions=True,
    ).cross_attentions
    by_layer = torch.stack([layer[0].mean(0) for layer in layers])
    return by_layer[wanted] if isinstance(wanted, int) else by_layer.mean(0)


def decode(folder: Path, sources: list[tuple[int, ...]], options: DecodingOptions) -> list[Outcome]:
    runner = Runner(build(Checkpoint(folder)), rows=13, max_target=40, latent_bytes=0)
    requests = [Request(source, options) for source in sources]
    return run_together(runner, requests, random.Random(0))


def some_sources(vocabulary: int = 96) -> list[tuple[int, ...]]:
    return [tuple(source) for source in random_sources(vocabulary, (1, 7, 20, 40))]


@WANTED
@pytest.mark.parametrize("prefix", [(), (7, 30, 12)], ids=["", "prefix"])
def test_a_greedy_targets_alignments_are_those_of_transformers(
    folder: Path, wanted: Literal["average"] | int, prefix: tuple[int, ...]
) -> None:
    theirs = reference(folder)
    options = DecodingOptions(
        max_new_tokens=20, min_new_tokens=3, alignments=wanted, target_prefix=prefix
    )

    for source, outcome in zip(
        some_sources(), decode(folder, some_sources(), options), strict=True
    ):
        rows = expected(theirs, source, [*prefix, *outcome.tokens], wanted)[len(prefix) :]
        torch.testing.assert_close(torch.tensor(outcome.alignments), rows, rtol=0, atol=1e-5)


@WANTED
@pytest.mark.parametrize("kind", [{"num_beams": 4, "num_hypotheses": 4}, {"alternatives": 3}])
def test_each_hypothesis_has_the_alignments_of_its_own_tokens(
    folder: Path, wanted: Literal["average"] | int, kind: dict[str, Any]
) -> None:
    theirs = reference(folder)
    options = DecodingOptions(max_new_tokens=20, alignments=wanted, **kind)

    branched = 0
    for source, outcome in zip(
        some_sources(), decode(folder, some_sources(), options), strict=True
    ):
        for hypothesis in outcome.hypotheses:
            assert len(hypothesis.alignments) == len(hypothesis.tokens)
            if hypothesis.tokens:
                rows = expected(theirs, source, [*hypothesis.tokens], wanted)
                found = torch.tensor(hypothesis.alignments)
                torch.testing.assert_close(found, rows, rtol=0, atol=1e-5)
                branched += 1
        certain = len(outcome.alignments)
        assert outcome.hypotheses[0].alignments[:certain] == tuple(outcome.alignments)
    assert branched > 6


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_company_changes_no_bit_of_an_alignment(precision: str, threads: int) -> None:
    network = tiny_network(decoder_layers=3).to(getattr(torch, precision))
    rng = random.Random(threads)
    requests = []
    for index in range(18 if threads == 1 else 5):
        beams = rng.choice([1, 1, 2, 4])
        options = DecodingOptions(
            max_new_tokens=rng.randint(2, 9),
            num_beams=beams,
            num_hypotheses=beams,
            alignments=(None, "average", 0, 2)[index % 4],
        )
        requests.append(Request(random_source(rng, 96, rng.randint(1, 70)), options))

    together = run_together(Runner(network, rows=9, max_target=40, latent_bytes=0), requests, rng)

    for request, outcome in zip(requests, together, strict=True):
        rows = request.options.rows
        runner = Runner(network, rows=rows, max_target=40, latent_bytes=0)
        assert outcome == run_alone(runner, request)
        asked = request.options.alignments is not None
        got = [*outcome.alignments, *(a for h in outcome.hypotheses for a in h.alignments)]
        assert all(len(row) == len(request.source) for row in got)
        assert bool(got) == (
            asked and any((outcome.tokens, *(h.tokens for h in outcome.hypotheses)))
        )


class Watched(EncoderDecoder):
    """Notes whether its decoder was asked for attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.asked: list[bool] = []

    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        memory: Memory,
        attention: list[Tensor] | None = None,
    ) -> Tensor:
        self.asked.append(attention is not None)
        return super().decode(tokens, positions, memory, attention)


_PLAIN: tuple[dict[str, Any], ...] = ({}, {"num_beams": 3})


def test_attention_is_kept_only_while_somebody_asks_for_it() -> None:
    network = Watched(tiny_config())
    randomise(network)
    runner = Runner(network, rows=6, max_target=40, latent_bytes=0)
    plain = [
        Request((5, 6, 7, 0), DecodingOptions(max_new_tokens=3, min_new_tokens=3, **kind))
        for kind in _PLAIN
    ]

    outcomes = run_together(runner, plain, random.Random(0))

    assert not any(network.asked)
    assert not any(outcome.alignments for outcome in outcomes)
    assert not any(h.alignments for outcome in outcomes for h in outcome.hypotheses)
    asking = DecodingOptions(max_new_tokens=2, min_new_tokens=2, alignments="average")
    run_alone(runner, Request((5, 6, 7, 0), asking))
    assert network.asked[-2:] == [True, True]
