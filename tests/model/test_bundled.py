"""The bundled checkpoint, ours against transformers and CTranslate2."""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from transformers import MarianMTModel, MarianTokenizer

from model import BUNDLED, DecodingOptions, Model
from tests.model.driver import Outcome, Request, run_together
from tests.model.networks import eager

MAX_TOKENS = 32


@pytest.fixture(scope="module")
def reference() -> Any:
    model: Any = MarianMTModel.from_pretrained(BUNDLED, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def directions(heldout: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Texts and their target languages: 32 sentences, each from both sides."""
    pairs = [pair for pair in heldout if len(pair[0]) < 60][:32]
    return [item for en, de in pairs for item in ((en, "de"), (de, "en"))]


def sources(model: Model, directions: list[tuple[str, str]]) -> list[tuple[int, ...]]:
    others = {"de": "en", "en": "de"}
    prompts = [model.tokenizer.prompt(text, others[t], t) for text, t in directions]
    return [prompt.source for prompt in prompts]


def translate(model: Model, chosen: list[tuple[int, ...]], **changes: Any) -> list[Outcome]:
    options = DecodingOptions(**{"max_new_tokens": MAX_TOKENS} | changes)
    requests = [Request(source, options) for source in chosen]
    return run_together(model.runner, requests, random.Random(0))


def generate(reference: Any, source: tuple[int, ...], **changes: Any) -> list[int]:
    """Greedy tokens of the reference; it forces the end at its last position, so not that one."""
    ids = torch.tensor([source])
    mask = torch.ones_like(ids)
    out = reference.generate(
        ids, attention_mask=mask, max_new_tokens=MAX_TOKENS + 1, do_sample=False, **changes
    )
    tokens: list[int] = out[0, 1:].tolist()
    return tokens[:MAX_TOKENS]


def test_logits_equal_the_reference(
    bundled: Model, reference: Any, directions: list[tuple[str, str]]
) -> None:
    network = eager(bundled.runner.network)
    for source in sources(bundled, directions)[:6]:
        ids = torch.tensor([source])
        target = torch.cat([torch.tensor([[8002]]), ids.flip(1)], 1)

        with torch.inference_mode():
            ours = network(ids, torch.tensor([len(source)]), target)
            theirs = reference(input_ids=ids, decoder_input_ids=target).logits

        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_greedy_tokens_equal_the_reference_one_by_one(
    bundled: Model, reference: Any, directions: list[tuple[str, str]]
) -> None:
    chosen = sources(bundled, directions)

    outcomes = translate(bundled, chosen)

    assert [o.tokens for o in outcomes] == [generate(reference, source) for source in chosen]


@pytest.mark.parametrize(
    "changes",
    [
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 20},
        {"repetition_penalty": 0.8, "no_repeat_ngram_size": 1, "min_new_tokens": 12},
    ],
)
def test_filtered_tokens_equal_the_reference(
    bundled: Model, reference: Any, directions: list[tuple[str, str]], changes: dict[str, Any]
) -> None:
    chosen = sources(bundled, directions)[:6]

    outcomes = translate(bundled, chosen, **changes)

    expected = [generate(reference, source, **changes) for source in chosen]
    assert [o.tokens for o in outcomes] == expected


def test_scores_are_the_log_probabilities_of_the_reference_before_filters(
    bundled: Model, reference: Any, directions: list[tuple[str, str]]
) -> None:
    source = sources(bundled, directions)[0]

    outcome = translate(bundled, [source], wants_scores=True, repetition_penalty=0.5)[0]

    target = torch.tensor([[8002, *outcome.tokens]])
    with torch.inference_mode():
        logits = reference(input_ids=torch.tensor([source]), decoder_input_ids=target).logits
    expected = logits[0, :-1].log_softmax(1).gather(1, target[0, 1:, None]).squeeze(1)
    torch.testing.assert_close(torch.tensor(outcome.scores), expected, rtol=1e-4, atol=1e-4)


def test_ctranslate2_converts_the_folder_and_translates_the_same(
    bundled: Model, directions: list[tuple[str, str]], tmp_path: Path
) -> None:
    chosen = sources(bundled, directions[:20])
    with warnings.catch_warnings():  # MarianTokenizer recommends sacremoses, unused here
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        tokenizer = MarianTokenizer.from_pretrained(BUNDLED)
        converter = ctranslate2.converters.TransformersConverter(str(BUNDLED))
        converter.convert(str(tmp_path / "converted"), force=True)
    translator = ctranslate2.Translator(
        str(tmp_path / "converted"), compute_type="float32", intra_threads=1, inter_threads=1
    )

    results = translator.translate_batch(
        [tokenizer.convert_ids_to_tokens(source) for source in chosen],
        beam_size=1,
        max_decoding_length=MAX_TOKENS,
    )

    ours = [outcome.tokens for outcome in translate(bundled, chosen)]
    ours = [tokens[:-1] if tokens[-1] == 0 else tokens for tokens in ours]
    theirs = [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
    equal = sum(mine == other for mine, other in zip(ours, theirs, strict=True))
    assert equal >= 18, (equal, ours, theirs)


def test_the_folder_is_small_enough_for_a_repository() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 30 * 2**20
    assert not list(BUNDLED.glob("*.bin"))


def test_special_tokens_stand_where_the_family_expects_them() -> None:
    vocabulary = json.loads((BUNDLED / "vocab.json").read_text(encoding="utf-8"))
    generation = json.loads((BUNDLED / "generation_config.json").read_text(encoding="utf-8"))
    pad = len(vocabulary) - 1

    assert (vocabulary["</s>"], vocabulary["<unk>"], vocabulary["<pad>"]) == (0, 1, pad)
    assert (generation["bad_words_ids"], generation["num_beams"]) == ([[pad]], 1)
    assert generation["decoder_start_token_id"] == generation["pad_token_id"] == pad


def test_the_padding_embedding_is_zero() -> None:
    embedding = load_file(BUNDLED / "model.safetensors")["model.shared.weight"]

    assert not embedding[-1].any()
    assert embedding[:-1].any(1).all()


def test_both_sides_share_one_sentencepiece_model_with_bytes_and_without_languages() -> None:
    spm = SentencePieceProcessor(model_file=str(BUNDLED / "source.spm"))
    symbols = [spm.id_to_piece(i) for i in range(spm.get_piece_size())]
    vocabulary = json.loads((BUNDLED / "vocab.json").read_text(encoding="utf-8"))

    assert (BUNDLED / "source.spm").read_bytes() == (BUNDLED / "target.spm").read_bytes()
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= set(symbols)
    assert {">>de<<", ">>en<<"} <= set(vocabulary) - set(symbols)
    assert set(vocabulary) - set(symbols) == {">>de<<", ">>en<<", "<pad>"}
