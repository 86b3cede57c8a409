"""The tokenizer equals transformers' MarianTokenizer, piece by piece and streamed."""

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import MarianTokenizer

from model import BUNDLED, Tokenizer, UnknownDirection
from model.checkpoint import Checkpoint
from model.tokenizer import open_tokenizer as open_any

REAL = Path(__file__).parents[3] / "shared" / "ckpt" / "marian-fr-en"
REFERENCES = pytest.mark.parametrize("folder", [BUNDLED, REAL], ids=["bundled", "marian-fr-en"])

TEXTS = [
    "Hello world.",
    "",
    " ",
    "  two  spaces   three ",
    "\ttab\nnew line\r\n\u00a0no-break\u2003em\u200bzero-width\u3000wide",
    ">>de<< How are you?",
    ">>de<<How are you?",
    ">>fra<< an unknown language",
    " >>de<< not at the start",
    "in the >>de<< middle",
    ">>de<< >>en<< twice",
    ">>de<<",
    ">>",
    "<<>>",
    "a</s>b",
    "a </s> b",
    "</s>",
    "</s></s>",
    "<unk>",
    "an <unk> in it",
    "a<pad>b <pad>",
    "</s>>>de<< after an end",
    "<s> <mask> <0x41> ▁ are ordinary",
    "🙂 emoji 👩‍👩‍👧 👍🏽 🇩🇪",
    "日本語 中文 العربية עברית ไทย",
    "ＡＢＣ ﬁ ½ ① e\u0301 é Ǆ ß ẞ",
    "\x00\x01\x7f\ufeff\ufffd",
    "naïve façade Straße — “quotes” …",
    "x" * 300,
    "12,345.67 € / 50 % @home #tag http://example.org/?q=1&r=2",
]


def open_tokenizer(folder: Path) -> Tokenizer:
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    checkpoint = Checkpoint(folder)
    vocabulary, eos = checkpoint.config["vocab_size"], checkpoint.config["eos_token_id"]
    return open_any(checkpoint, architecture="marian", vocabulary=vocabulary, eos=eos)


def open_reference(folder: Path) -> Any:
    with warnings.catch_warnings():  # it recommends sacremoses, which it uses for nothing here
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        return MarianTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return open_tokenizer(BUNDLED)


@pytest.fixture(scope="module")
def pieces() -> dict[str, int]:
    vocabulary: dict[str, int] = json.loads((BUNDLED / "vocab.json").read_text(encoding="utf-8"))
    return vocabulary


def streamed(tokenizer: Tokenizer, ids: list[int] | tuple[int, ...]) -> list[str]:
    detokenizer = tokenizer.detokenizer()
    return [*map(detokenizer.push, ids), detokenizer.finish()]


@REFERENCES
def test_raw_texts_have_the_ids_of_the_reference(
    folder: Path, heldout: list[tuple[str, str]]
) -> None:
    ours, reference = open_tokenizer(folder), open_reference(folder)
    texts = TEXTS + [text for pair in heldout[:300] for text in pair]

    found = {text: list(ours.encode_raw(text)) for text in texts}

    assert found == {text: reference(text).input_ids for text in texts}


@REFERENCES
def test_random_strings_have_the_ids_of_the_reference(folder: Path) -> None:
    ours, reference = open_tokenizer(folder), open_reference(folder)
    rng = random.Random(0)
    parts = [
        "</s>",
        "<unk>",
        "<pad>",
        ">>de<<",
        ">>",
        "<<",
        " ",
        "  ",
        "\n",
        "a",
        "Ä",
        "🙂",
        "word",
    ]
    texts = ["".join(rng.choices(parts, k=rng.randint(1, 8))) for _ in range(500)]

    found = {text: list(ours.encode_raw(text)) for text in texts}

    assert found == {text: reference(text).input_ids for text in texts}


def whole_vocabulary(rng: random.Random, size: int, _: list[int]) -> int:
    return rng.randrange(size)


def mostly_bytes_and_spaces(rng: random.Random, size: int, peculiar: list[int]) -> int:
    return rng.choice([rng.randrange(size), *rng.choices(peculiar, k=4)])


@REFERENCES
@pytest.mark.parametrize("choose", [whole_vocabulary, mostly_bytes_and_spaces])
def test_random_ids_have_the_text_of_the_reference(
    folder: Path, choose: Callable[[random.Random, int, list[int]], int]
) -> None:
    ours, reference = open_tokenizer(folder), open_reference(folder)
    vocabulary = reference.get_vocab()
    peculiar = [i for piece, i in vocabulary.items() if piece.startswith("<0x") or piece == "▁"]
    peculiar = peculiar or [vocabulary["▁"]]
    rng = random.Random(0)

    for _ in range(1000):
        ids = [choose(rng, len(vocabulary), peculiar) for _ in range(rng.randint(0, 15))]
        ids = [i for i in ids if not ours.is_special(i)]
        assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True), ids


def test_a_special_token_inside_a_character_is_skipped_as_the_reference_skips_it(
    tokenizer: Tokenizer, pieces: dict[str, int]
) -> None:
    ids = [pieces["<0xC3>"], pieces["<unk>"], pieces["<0xA9>"]]

    assert tokenizer.decode(ids) == "é"
    assert open_reference(BUNDLED).decode(ids, skip_special_tokens=True) == "é"


def test_special_tokens_in_data_are_characters(
    tokenizer: Tokenizer, pieces: dict[str, int]
) -> None:
    special = {pieces[token] for token in ("</s>", "<unk>", "<pad>", ">>de<<", ">>en<<")}

    for text in ("a</s>b", "</s>", ">>fra<< x", ">>en<< x", "<pad>", "<unk> y"):
        code, *ids, end = tokenizer.prompt(text, "en", "de").source

        assert (code, end) == (pieces[">>de<<"], pieces["</s>"])
        assert not special & set(ids)
        assert tokenizer.decode(ids) == text


def test_the_directions_are_those_of_the_files(tokenizer: Tokenizer) -> None:
    assert tokenizer.targets == {"en": ("de",), "de": ("en",)}
    assert tokenizer.prompt("Hi.", "en", "de").source[1:] == tokenizer.encode_raw("Hi.")
    with pytest.raises(UnknownDirection, match="en to fr is not supported"):
        tokenizer.prompt("Hello.", "en", "fr")


def test_a_bilingual_model_gets_no_language_token() -> None:
    bilingual = open_tokenizer(REAL)

    assert bilingual.targets == {"fr": ("en",)}
    assert bilingual.prompt("Bonjour.", "fr", "en").source == bilingual.encode_raw("Bonjour.")


def test_held_out_sentences_survive_a_round_trip_delta_by_delta(
    tokenizer: Tokenizer, heldout: list[tuple[str, str]]
) -> None:
    for sentence in (sentence for pair in heldout[:400] for sentence in pair):
        ids = tokenizer.encode_target(sentence)
        deltas = streamed(tokenizer, ids)

        assert "".join(deltas) == tokenizer.decode(ids)
        assert "".join(deltas) == sentence.replace("\u00a0", " ")  # which the model normalises
        assert "\ufffd" not in "".join(deltas)


@pytest.mark.parametrize("text", ["🙂", "a👩‍👩‍👧b", "日本語", "naïve 👍🏽 ok", "e\u0301ẞ"])
def test_no_delta_ends_within_a_character(tokenizer: Tokenizer, text: str) -> None:
    deltas = streamed(tokenizer, tokenizer.encode_target(text))

    assert "".join(deltas) == tokenizer.decode(tokenizer.encode_target(text))
    assert not any("\ufffd" in delta for delta in deltas)


def test_deltas_of_random_ids_concatenate_to_the_whole_text(tokenizer: Tokenizer) -> None:
    rng = random.Random(1)
    for _ in range(500):
        ids = [rng.choice([rng.randrange(8003), rng.randrange(2, 258)]) for _ in range(20)]
        text = "".join(streamed(tokenizer, ids))

        assert text == tokenizer.decode(ids) == text.strip()


@pytest.mark.parametrize(
    ("tokens", "deltas"),
    [
        (["▁", "▁a", "▁", "▁", "b", "▁"], ["", "a", "", "", "  b", "", ""]),
        (["<0xF0>", "<0x9F>", "<0x99>", "<0x82>"], ["", "", "", "🙂", ""]),
        (["<0xF0>", "<0x9F>", "a"], ["", "", "\ufffd\ufffda", ""]),
        (["<0xF0>", "<0x9F>"], ["", "", "\ufffd\ufffd"]),
        (["<0xFF>", "<0x80>", "<0x41>"], ["\ufffd", "\ufffd", "A", ""]),
        (["<0xE2>", "<0x41>"], ["", "\ufffdA", ""]),
        (["a", "</s>"], ["a", "", ""]),
        (["<0x20>", "a", "<0x20>", "<0x20>"], ["", "a", "", "", ""]),
    ],
)
def test_text_is_released_as_soon_as_it_is_certain(
    tokenizer: Tokenizer, pieces: dict[str, int], tokens: list[str], deltas: list[str]
) -> None:
    assert streamed(tokenizer, [pieces[token] for token in tokens]) == deltas
