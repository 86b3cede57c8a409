"""What tokenizer_config.json says counts as it counts for transformers, or is refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from model import CheckpointError, OutsideVocabulary, UnsupportedModel
from tests.model.corpus import lines
from tests.model.references import change_json, made, open_ours, open_reference
from tests.model.vocabularies import FAMILIES, Files

ABSENT: Any = ...  # the setting is removed
CODES = "additional_special_tokens"
SPM: Files = "sentencepiece"
CLEAN, FAST = {"clean_up_tokenization_spaces": True}, "tokenizer_class"
MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": True}
NO_MASKS = {"mask_token": ABSENT, "mask_token_sent": ABSENT, "offset": ABSENT, CODES: ABSENT}
NO_NAMES = {"eos_token": ABSENT, "pad_token": ABSENT, "unk_token": ABSENT, "extra_ids": ABSENT}


def listed(**tokens: int) -> dict[str, Any]:
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    names = {"end": "</s>", "unknown": "<unk>"}
    return {
        "added_tokens_decoder": {
            str(index): flags | {"content": names.get(name, name), "special": True}
            for name, index in tokens.items()
        }
    }


CASES: list[tuple[str, Files, dict[str, Any]]] = [
    ("nllb", "json", {CODES: None}),
    ("nllb", "json", {CODES: ABSENT, "src_lang": None}),
    ("nllb", SPM, {CODES: ABSENT}),
    ("nllb", SPM, {CODES: None}),
    ("nllb", "json", {"legacy_behaviour": True, "src_lang": "deu_Latn"}),
    ("nllb", "json", {"mask_token": "<mask>", FAST: "NllbTokenizerFast"}),
    ("nllb", "json", {"src_lang": "xyz_Latn"}),
    ("nllb", "json", {"extra_special_tokens": ["deu_Latn", "eng_Latn"]}),
    ("nllb", "json", CLEAN),
    ("t5", "json", {CODES: ABSENT}),
    ("t5", SPM, {CODES: ABSENT, "extra_ids": ABSENT}),
    ("t5", "json", {CODES: ABSENT, "extra_ids": 0}),
    ("t5", "json", {"image_token": "<image>", "bos_token": "<s>"}),
    ("t5", "json", {"extra_special_tokens": {"image_token": "<image>"}}),
    ("t5", "json", {"clean_up_tokenization_spaces": False, FAST: ABSENT}),
    ("t5", "json", {FAST: "PreTrainedTokenizerFast"}),
    ("t5", "json", {FAST: "T5TokenizerFast", "legacy": False}),
    ("t5", "json", {"split_special_tokens": True}),
    ("t5", SPM, {CODES: ["<foo>"]}),
    ("mt5", "json", {FAST: "MT5Tokenizer"}),
    ("mt5", SPM, {"extra_ids": ABSENT}),
    ("madlad", "json", {"extra_ids": ABSENT, CODES: ABSENT}),
    ("madlad", SPM, {CODES: ABSENT}),
    ("mbart", "json", {CODES: None}),
    ("mbart", SPM, {CODES: ["<x>"], "src_lang": "de_DE", "mask_token": "<mask>"}),
    ("mbart50", "json", {CODES: None, FAST: "MBart50TokenizerFast"}),
    ("mbart50", SPM, {"mask_token": "<mask>", "src_lang": None}),
    ("bart", "json", {"add_prefix_space": True, FAST: ABSENT}),
    ("bart", SPM, {"add_prefix_space": True, "trim_offsets": False}),
    ("bart", "json", CLEAN | {"mask_token": {"__type": "AddedToken", **MASK}}),
    ("pegasus", SPM, NO_MASKS),
    ("pegasus", SPM, {"mask_token_sent": None}),
    ("pegasus", "json", {CODES: ABSENT}),
    ("m2m100", "json", {"src_lang": "de", CODES: None}),
    ("m2m100", "json", {"language_codes": "wmt21"}),
    ("m2m100", "json", {CODES: ["__fr__"]} | CLEAN),
    ("marian", "json", CLEAN),
    ("marian", "json", {CODES: ["<x>"], "bos_token": "<s>"}),
    ("marian", "json", listed(end=0, unknown=1, word=7)),
    ("byt5", "json", NO_NAMES | {CODES: ABSENT}),
    ("byt5", "json", {"eos_token": "</s>"} | CLEAN),
    ("byt5", "json", {CODES: ABSENT, "extra_ids": 0}),
]


@pytest.mark.parametrize(
    ("family", "files", "changes"), CASES, ids=[f"{f}-{v}-{'+'.join(c)}" for f, v, c in CASES]
)
def test_settings_count_as_they_count_for_the_reference(
    family: str, files: Files, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = made(family, files, tmp_path)
    change_json(folder / "tokenizer_config.json", **changes)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    if family != "marian":  # the tokens that the settings add have embeddings
        size += 300
        change_json(folder / "config.json", vocab_size=size)
    ours, reference = open_ours(folder), open_reference(folder)
    texts = [text for text in lines()[::21] if "<s>" not in text]
    rng = random.Random(0)

    assert [list(ours.encode_raw(text)) for text in texts] == reference.encode(texts)
    for _ in range(200):
        ids = [rng.randrange(min(size, reference.size)) for _ in range(rng.randint(0, 9))]
        assert ours.decode(ids) == reference.decode(ids), ids


def test_targets_of_separate_vocabularies_are_those_of_the_reference(tmp_path: Path) -> None:
    folder = made("marian", "json", tmp_path)
    change_json(folder / "tokenizer_config.json", separate_vocabs=True)
    begin = ["</s>", "<unk>", "<pad>"]
    rest = sorted(set(json.loads((folder / "vocab.json").read_text())) - set(begin))
    sides = {"vocab.json": [*begin, *rest], "target_vocab.json": [*begin, *rest[:100:-1]]}
    for name, pieces in sides.items():
        (folder / name).write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    size = len(sides["target_vocab.json"])
    change_json(folder / "config.json", decoder_vocab_size=size)
    ours, reference = open_ours(folder), open_reference(folder)
    texts = [text for text in lines()[::50] if ">>" not in text and "<" not in text]
    theirs = reference.tokenizer(text_target=texts).input_ids
    rng = random.Random(0)

    assert [list(ours.encode_raw(t)) for t in texts] == reference.encode(texts)
    assert [[*ours.encode_target(t), 0] for t in texts] == theirs
    for _ in range(200):
        drawn = [rng.randrange(size) for _ in range(rng.randint(0, 9))]
        assert ours.decode(drawn) == reference.decode(drawn), drawn


def test_a_token_without_an_embedding_is_refused_by_name(tmp_path: Path) -> None:
    folder = made("madlad", "json", tmp_path)
    change_json(folder / "tokenizer_config.json", extra_ids=ABSENT, **{CODES: ABSENT})
    ours = open_ours(folder)

    with pytest.raises(OutsideVocabulary, match="<extra_id_5>, beyond the model's 1000 tokens"):
        ours.encode_raw("a <extra_id_5> b")
    assert max(ours.encode_target("a <extra_id_5> b")) < 1000


@pytest.mark.parametrize("family", ["marian", "m2m100", "byt5", "t5"])
def test_what_is_not_supported_is_refused(family: str, tmp_path: Path) -> None:
    folder = made(family, "json", tmp_path)
    change_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    with pytest.raises(UnsupportedModel, match=r"tokenizer_class 'LlamaTokenizer' is not supp"):
        open_ours(folder)


@pytest.mark.parametrize("family", ["marian", "m2m100", "byt5"])
def test_a_setting_that_a_class_cannot_honour_is_refused(family: str, tmp_path: Path) -> None:
    folder = made(family, "json", tmp_path)
    change_json(folder / "tokenizer_config.json", split_special_tokens=True)
    with pytest.raises(UnsupportedModel, match="split_special_tokens"):
        open_ours(folder)


@pytest.mark.parametrize("key", ["auto_map", "fast_tokenizer_files"])
def test_a_tokenizer_in_other_files_is_refused(key: str, tmp_path: Path) -> None:
    folder = made("t5", "json", tmp_path)
    change_json(folder / "tokenizer_config.json", **{key: ["x"]})
    with pytest.raises(UnsupportedModel, match=f"{key} is not supported"):
        open_ours(folder)


# -- damaged and hostile files -------------------------------------------------------------------

HOSTILE: dict[str, Any] = {
    "empty": b"",
    "text": b"not what it says",
    "list": b"[]",
    "nothing": b"{}",
    "deep": b"[" * 100_000,
    "model": b'{"model": {"type": "Unigram", "vocab": [[1, 2], ["a"]]}, "added_tokens": []}',
    "huge": b'{"model": {"type": "BPE", "vocab": {"a": 99999999999}, "merges": [["b", "c"]]}}',
    "bytes": bytes(range(256)) * 16,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [*HOSTILE, "cut"])
def test_a_damaged_file_is_one_line_that_names_it(family: str, kind: str, tmp_path: Path) -> None:
    variants: tuple[Files, ...] = ("json", "sentencepiece")
    for files in variants:
        whole = made(family, files, tmp_path)
        for path in sorted(whole.iterdir()):
            if path.name == "config.json":
                continue
            before = path.read_bytes()
            path.write_bytes(HOSTILE.get(kind, before[: len(before) * 2 // 3]))
            message = failure(whole)
            assert message is None or str(tmp_path) in message
            assert "\n" not in (message or "")
            assert len(message or "") < 600
            path.write_bytes(before)
        open_ours(whole)


def failure(folder: Path) -> str | None:
    try:
        open_ours(folder)
    except (CheckpointError, UnsupportedModel) as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["tokenizer.json", "spiece.model"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = made("t5", "json" if name == "tokenizer.json" else SPM, tmp_path)
    for path in (folder / "tokenizer.json", folder / "spiece.model"):
        path.unlink(missing_ok=True)

    with pytest.raises(CheckpointError, match=r"tokenizer\.json nor spiece\.model is there"):
        open_ours(folder)


def test_more_ids_than_embeddings_are_refused(tmp_path: Path) -> None:
    folder = made("mbart50", "json", tmp_path)
    change_json(folder / "config.json", vocab_size=600)
    with pytest.raises(CheckpointError, match=r"has 654 ids; config.json says 600"):
        open_ours(folder)


def test_a_special_token_without_an_embedding_is_no_hindrance(tmp_path: Path) -> None:
    folder = made("bart", "json", tmp_path)  # as facebook/bart-large-cnn, which lacks <mask>
    mask = open_ours(folder).token_id("<mask>")
    assert mask is not None
    change_json(folder / "config.json", vocab_size=mask)
    ours, reference = open_ours(folder), open_reference(folder)

    assert [ours.encode_raw("Hello </s> world")] == list(
        map(tuple, reference.encode(["Hello </s> world"]))
    )
    assert mask not in ours.encode_target("Hello <mask>")
    with pytest.raises(OutsideVocabulary, match="names <mask>"):
        ours.encode_raw("Hello <mask>")


@pytest.mark.parametrize(
    ("family", "files", "name"),
    [("t5", "json", "extra_ids"), ("pegasus", "json", "offset"), ("byt5", "json", "extra_ids")],
)
def test_an_absurd_number_of_tokens_is_refused_at_once(
    family: str, files: Files, name: str, tmp_path: Path
) -> None:
    folder = made(family, files, tmp_path)
    absent = {CODES: ABSENT} if family == "byt5" else {}
    change_json(folder / "tokenizer_config.json", **{name: 10**9} | absent)

    with pytest.raises(UnsupportedModel, match=f"{name} 1000000000 is not from 0"):
        open_ours(folder)


def test_a_path_in_the_settings_opens_no_file(tmp_path: Path) -> None:
    folder = made("t5", "json", tmp_path)
    before = open_ours(folder).encode_raw("Hello")
    elsewhere = {"vocab_file": "/etc/passwd", "tokenizer_file": "/etc/passwd"}
    change_json(folder / "tokenizer_config.json", **elsewhere)

    assert open_ours(folder).encode_raw("Hello") == before
