"""The recipe that makes the bundled model, on a few made-up sentences."""

import random
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

from model import load
from tests.model.networks import eager
from training.corpus import (
    Pair,
    Ragged,
    batches,
    hold_out,
    key,
    read_pairs,
    train_sentencepiece,
    vocabulary,
    without,
)
from training.export import export
from training.network import build
from training.train import Recipe, Training, run

ROOT = Path(__file__).parent.parent.parent
SHARED = ROOT.parent / "shared/data/train.en-de.tsv.xz"
RECIPE = Recipe(
    width=64,
    encoder_layers=1,
    decoder_layers=1,
    steps=5,
    focus_steps=3,
    warmup_steps=2,
    batch_tokens=200,
    seed=3,
)


def pairs(count: int) -> list[Pair]:
    chance = random.Random(1)
    words = [("I", "ich"), ("see", "sehe"), ("house", "Haus"), ("red", "rot"), ("the", "das")]
    made = []
    for number in range(count):
        chosen = chance.choices(words, k=chance.randint(2, 9))
        english, other = " ".join(w[0] for w in chosen), " ".join(w[1] for w in chosen)
        made.append(Pair(f"{english} {number}.", f"{other} {number}.", "made"))
    return made


@pytest.fixture(scope="module")
def encoded() -> tuple[bytes, dict[str, int], Ragged, Ragged]:
    made = pairs(120)
    serialised = train_sentencepiece((s for p in made for s in (p.english, p.other)), 300)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=serialised)
    ids = vocabulary(pieces, ["de", "en"])
    sources = Ragged([[ids[">>de<<"], *pieces.encode(p.english), 0] for p in made])
    return serialised, ids, sources, Ragged([[*pieces.encode(p.other), 0] for p in made])


def training(encoded: tuple[bytes, dict[str, int], Ragged, Ragged]) -> Training:
    _, ids, sources, targets = encoded
    torch.manual_seed(RECIPE.seed)
    model = build(len(ids), RECIPE.width, RECIPE.encoder_layers, RECIPE.decoder_layers)
    rows = range(40)
    focus = (Ragged([[*sources[i]] for i in rows]), Ragged([[*targets[i]] for i in rows]))
    return Training(model, RECIPE, (sources, targets), focus, "cpu")


@pytest.mark.parametrize("interrupted_after", [3, 5, 6])
def test_training_that_was_interrupted_ends_with_the_same_weights(
    encoded: tuple[bytes, dict[str, int], Ragged, Ragged], tmp_path: Path, interrupted_after: int
) -> None:
    whole = training(encoded)
    run(whole, tmp_path / "whole.pt", save_every=100)
    first = training(encoded)
    for _ in range(interrupted_after):
        first.advance()
    first.save(tmp_path / "half.pt")
    second = training(encoded)
    run(second, tmp_path / "half.pt", save_every=100)

    assert second.step == whole.step == RECIPE.steps + RECIPE.focus_steps
    for one, other in zip(whole.average.values, second.average.values, strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_another_recipe_is_refused(
    encoded: tuple[bytes, dict[str, int], Ragged, Ragged], tmp_path: Path
) -> None:
    training(encoded).save(tmp_path / "state.pt")
    other = training(encoded)
    other.recipe = Recipe(width=64)
    with pytest.raises(ValueError, match="was made by"):
        other.restore(tmp_path / "state.pt")


def test_what_is_exported_loads_and_its_padding_stays_zero(
    encoded: tuple[bytes, dict[str, int], Ragged, Ragged], tmp_path: Path
) -> None:
    serialised, ids, _, _ = encoded
    trained = training(encoded)
    run(trained, tmp_path / "state.pt", save_every=100)
    with trained.average.in_place_of(trained.model):
        export(trained.model, serialised, ids, tmp_path / "made")

    model = load(tmp_path / "made", slots=8, precision="float32")

    assert model.card.targets == {"de": ("en",), "en": ("de",)}
    embedding = eager(model.runner.network).embedding.weight
    assert not embedding[len(ids) - 1].any()
    assert embedding[:-1].any(dim=1).all()


def test_held_out_sentences_share_neither_side_with_what_is_left() -> None:
    made = [*pairs(100), Pair("I see 5!", "anders", "made"), Pair("anders", "ich sehe 5?", "x")]
    held = hold_out(made, "made", 20)
    left = without(made, held)

    assert len(held) == 20
    assert hold_out(list(reversed(made)), "made", 20) == held
    assert not {key(p.english) for p in held} & {key(p.english) for p in left}
    assert not {key(p.other) for p in held} & {key(p.other) for p in left}
    with pytest.raises(ValueError, match="were asked for"):
        hold_out(made, "made", 1000)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the parallel text the model was made from")
def test_the_committed_held_out_sentences_are_those_of_the_recipe() -> None:
    found = hold_out(read_pairs(SHARED, frozenset({"tatoeba"})), "tatoeba", 1000)
    committed = (ROOT / "tests/data/heldout.en-de.tsv").read_text(encoding="utf-8").splitlines()
    assert [f"{pair.english}\t{pair.other}" for pair in found] == committed


def test_batches_hold_every_example_once_within_their_size(
    encoded: tuple[bytes, dict[str, int], Ragged, Ragged],
) -> None:
    _, _, sources, targets = encoded
    cut = batches(sources, targets, 200, np.random.default_rng(1))

    assert sorted(np.concatenate(cut).tolist()) == list(range(len(sources)))
    longest = [int((sources.lengths[b] + targets.lengths[b]).max()) + 2 for b in cut]
    assert all(len(b) * width <= 200 or len(b) == 1 for b, width in zip(cut, longest, strict=True))


def test_the_rate_rises_and_falls_to_zero() -> None:
    recipe = Recipe(steps=100, warmup_steps=10, peak_rate=1.0, focus_steps=10, focus_rate=0.5)
    assert recipe.rate(0) == pytest.approx(0.1)
    assert recipe.rate(9) == pytest.approx(1.0)
    assert recipe.rate(55) == pytest.approx(0.5)
    assert recipe.rate(99) == pytest.approx(0.0, abs=0.01)
    assert [recipe.rate(step) for step in (100, 105, 110)] == pytest.approx([0.5, 0.25, 0.0])
