"""Every family's tokenizer has the reference's ids and the reference's text."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from model import Tokenizer
from tests.model.corpus import SPECIAL, lines
from tests.model.references import (
    REAL,
    Reference,
    made,
    open_ours,
    open_reference,
    published,
)
from tests.model.vocabularies import FAMILIES, Files

FOLDERS = ["bundled", *REAL, *(f"{f}-{v}" for f in FAMILIES for v in ("json", "sentencepiece"))]


@dataclass(frozen=True)
class Case:
    """One folder, opened by us and by the reference."""

    folder: Path
    ours: Tokenizer
    reference: Reference


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    into = tmp_path_factory.mktemp("tokenizers")

    @cache
    def open_case(name: str) -> Case:
        family, _, files = name.rpartition("-")
        kind: Files = "json" if files == "json" else "sentencepiece"
        is_ours = name == f"{family}-{kind}"
        folder = made(family, kind, into) if is_ours else published(name, into)
        return Case(folder, open_ours(folder), open_reference(folder))

    return open_case


@pytest.fixture(params=FOLDERS)
def case(request: pytest.FixtureRequest, opened: Callable[[str], Case]) -> Case:
    return opened(request.param)


def is_made(folder: Path) -> bool:
    return folder.name.endswith(("-json", "-sentencepiece"))


def sample(folder: Path) -> tuple[str, ...]:
    """Return all lines for a published vocabulary, every eighth for one that is trained here."""
    return lines()[::8] if is_made(folder) else lines()


def differences(ours: Tokenizer, reference: Reference, texts: tuple[str, ...]) -> dict[str, Any]:
    pairs = zip(texts, reference.encode(texts), strict=True)
    found = {text: (list(ours.encode_raw(text)), theirs) for text, theirs in pairs}
    return {text: ids for text, ids in found.items() if ids[0] != ids[1]}


def test_there_are_ten_thousand_lines_in_many_scripts() -> None:
    assert len(lines()) > 10_000
    text = "".join(lines())
    for letters in (
        "é",
        "Щ",
        "ω",
        "ש",
        "ع",
        "ह",
        "ไ",
        "翻",
        "小さ",
        "번역",
        "🙂",
        "\u0301",
        "\u3000",
    ):
        assert letters in text


def test_raw_lines_have_the_ids_of_the_reference(case: Case) -> None:
    assert differences(case.ours, case.reference, sample(case.folder)) == {}


def random_ids(rng: random.Random, ours: Tokenizer, size: int) -> list[int]:
    """Draw ids of all kinds: words, bytes, marks, special ones; some of them often."""
    names = (
        "▁. ▁' ▁n ' t s ▁s m ▁m v ▁v re ▁ ▁▁ Ġ. Ġ' Ġn <0xC3> <0xA9> <0xF0> <0x9F> <0x20> </s> <pad>"
    )
    marks = [i for name in names.split() if (i := ours.token_id(name)) is not None]
    marks += [rng.randrange(min(size, 300))]
    kinds = rng.choice([1, 2, 3])
    count = rng.randint(0, 15)
    return [rng.choice([rng.randrange(size), *rng.choices(marks, k=kinds)]) for _ in range(count)]


def deltas(tokenizer: Tokenizer, ids: list[int]) -> Iterator[str]:
    detokenizer = tokenizer.detokenizer()
    yield from map(detokenizer.push, ids)
    yield detokenizer.finish()


def test_any_ids_have_the_text_of_the_reference_delta_by_delta(case: Case) -> None:
    ours, reference = case.ours, case.reference
    rng = random.Random(0)
    early = late = 0

    for _ in range(1000):
        ids = random_ids(rng, ours, reference.size)
        *pushed, last = deltas(ours, ids)
        text = reference.decode(ids)
        assert "".join([*pushed, last]) == text, ids
        early, late = early + len("".join(pushed)), late + len(last)

    assert late < 0.03 * early  # it streams, rather than keep everything for the end


def test_special_ids_are_those_that_the_reference_skips(case: Case) -> None:
    ours, reference = case.ours, case.reference
    if reference.is_bare:
        tokens = reference.tokenizer.get_added_tokens_decoder()
        skipped = {i for i, token in tokens.items() if token.special}
    else:
        skipped = set(reference.tokenizer.all_special_ids)

    assert {i for i in range(reference.size) if ours.is_special(i)} == skipped


def test_the_pipeline_is_the_references_to_the_letter(case: Case) -> None:
    ours, reference = case.ours, case.reference
    pipeline = getattr(ours, "_pipeline", None)
    if pipeline is None:
        assert not hasattr(reference.tokenizer, "_tokenizer")
        return
    theirs = reference.tokenizer if reference.is_bare else reference.tokenizer._tokenizer
    theirs.no_truncation()
    found, expected = (json.loads(backend.to_str()) for backend in (pipeline, theirs))
    for content in (found, expected):
        (content["post_processor"] or {}).pop("pair", None)  # of two texts, which are never sent

    assert found == expected


# -- data ----------------------------------------------------------------------------------------

HOSTILE = " ".join(SPECIAL)


def plain(texts: tuple[str, ...]) -> list[str]:
    """Return the lines in which nothing looks like a special token, in any normal form."""
    return [text for text in texts if not any(mark in text for mark in "<>_＜＞＿▁")]


def with_languages(reference: Reference, source: str, target: str) -> tuple[str, str]:
    """Return the reference's names of a pair of client codes."""
    names = {
        "NllbTokenizer": {"en": "eng_Latn", "de": "deu_Latn", "zh": "zho_Hans"},
        "MBartTokenizer": {"en": "en_XX", "de": "de_DE", "zh": "zh_CN"},
        "MBart50Tokenizer": {"en": "en_XX", "de": "de_DE", "zh": "zh_CN"},
        "M2M100Tokenizer": {"en": "en", "de": "de", "zh": "zh"},
    }[type(reference.tokenizer).__name__]
    return names[source], names[target]


TOLD_BY_TOKENS = [
    f"{family}-{files}"
    for family in ("m2m100", "nllb", "mbart", "mbart50")
    for files in ("json", "sentencepiece")
]


@pytest.mark.parametrize("case", TOLD_BY_TOKENS, indirect=True)
def test_prompts_have_the_ids_of_the_references_translation_inputs(case: Case) -> None:
    ours, reference = case.ours, case.reference
    names = with_languages(reference, "de", "zh")
    texts = plain(sample(case.folder))
    default = reference.tokenizer.src_lang
    reference.tokenizer.src_lang = names[0]
    expected = reference.encode(texts)

    prompts = [ours.prompt(text, "de", "zh") for text in texts]

    token = reference.tokenizer._build_translation_inputs(
        "", src_lang=names[0], tgt_lang=names[1], **tensors(reference)
    )["forced_bos_token_id"]
    reference.tokenizer.src_lang = default
    assert [list(prompt.source) for prompt in prompts] == expected
    is_start = type(reference.tokenizer).__name__ == "MBartTokenizer"
    forced = {(None, token)} if is_start else {(token, None)}
    assert {(prompt.forced_bos, prompt.start) for prompt in prompts} == forced


def tensors(reference: Reference) -> dict[str, Any]:
    return {"return_tensors": None} if hasattr(reference.tokenizer, "_tokenizer") else {}


def test_data_has_the_raw_ids_where_nothing_looks_special(case: Case) -> None:
    ours, reference = case.ours, case.reference
    texts = plain(sample(case.folder))
    if reference.is_bare:
        expected = [reference.tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
    else:
        expected = [list(i) for i in reference.tokenizer(texts, add_special_tokens=False).input_ids]

    if type(ours).__name__ == "MarianTokenizer":  # whose targets have another vocabulary
        before = len(ours.prompt("", *direction(ours)).source) - 1
        prompts = [ours.prompt(text, *direction(ours)) for text in texts]
        assert [list(prompt.source[before:-1]) for prompt in prompts] == expected
    else:
        assert [list(ours.encode_target(text)) for text in texts] == expected


def direction(ours: Tokenizer) -> tuple[str, str]:
    source = next(iter(ours.targets))
    return source, ours.targets[source][0]


def test_special_tokens_in_data_are_characters(case: Case) -> None:
    ours, expected = case.ours, unknown_ids(case)
    for text in (HOSTILE, *SPECIAL):
        found = set(ours.encode_target(text))
        if ours.targets:
            empty, prompt = (ours.prompt(t, *direction(ours)) for t in ("", text))
            assert [i for i in prompt.source if ours.is_special(i) and i not in expected] == [
                i for i in empty.source if ours.is_special(i) and i not in expected
            ]
        assert not {i for i in found if ours.is_special(i)} - expected
        assert not found & language_ids(ours)


def unknown_ids(case: Case) -> set[int]:
    """Return what unknown characters become; for MADLAD transformers makes them ends."""
    return {2} if "madlad" in case.folder.name else {case.ours.token_id("<unk>") or 0}


def language_ids(ours: Tokenizer) -> set[int]:
    names = ["deu_Latn", "eng_Latn", "de_DE", "en_XX", "__en__", "__de__", "<2de>", ">>deu<<"]
    names += ["<extra_id_0>", "<extra_id_99>", "<mask>", "<mask_1>", "<unk_3>"]
    found = {ours.token_id(name) for name in names}
    return {i for i in found if i is not None and ours.decode([i]) != "<unk>"}


# -- words inside a target -----------------------------------------------------------------------

WORDS = ("Haus", "Zeit", "house", "Häuser", "der Zeit", "2024", "10 Häuser", "l'eau")


@pytest.mark.parametrize("word", WORDS)
def test_words_inside_a_target_read_as_they_were_given(case: Case, word: str) -> None:
    ours = case.ours
    before = ours.encode_target("der zeit und")
    start = ours.decode(before)

    found = ours.encode_inside(word)

    if found is None:  # a published vocabulary lacks a letter, or writes capitals otherwise
        assert not is_made(case.folder)
        assert ours.decode(ours.encode_target(f"a {word}")) != f"a {word}"
        return
    assert not any(map(ours.is_special, found))
    assert ours.decode((*before, *found, *before)).startswith(f"{start} {word}")
    assert ours.decode(found).removeprefix(" ") == word  # and at the beginning


@pytest.mark.parametrize("word", ["Zeit", "nd", "翻译", "時間", "말"])
def test_words_of_scripts_without_spaces_follow_others_directly(case: Case, word: str) -> None:
    ours = case.ours

    found = ours.encode_inside(word, is_spaced=False)

    if found is not None:
        readings = [ours.decode((*ours.encode_target(mark), *found)) for mark in "a1("]
        assert {f"a{word}", f"1{word}", f"({word}"} & {*readings}
    else:  # the vocabulary does not know it, or always writes it together with others
        assert not is_made(case.folder) or word not in ("翻译", "時間")


@pytest.mark.parametrize("text", ["", " ", "Haus ", " Haus", "Haus\n"])
def test_what_is_no_words_is_not_encoded(case: Case, text: str) -> None:
    assert case.ours.encode_inside(text) is None


@pytest.mark.parametrize("text", ["der  Zeit", "Zeit\tHaus", "</s>", "Zeit <pad>", "Zeit 🧿", "ﬁn"])
def test_what_a_vocabulary_cannot_write_exactly_is_not_encoded(case: Case, text: str) -> None:
    ours = case.ours

    found = ours.encode_inside(text)

    if found is not None:  # bytes write anything
        assert not any(map(ours.is_special, found))
        assert ours.decode((*ours.encode_target("a"), *found)) == f"a {text}"


def test_neither_unknown_characters_nor_other_spaces_are_encoded(
    opened: Callable[[str], Case],
) -> None:
    for name in ("marian-json", "m2m100-sentencepiece", "nllb-json", "t5-json"):
        for text in ("Zeit 🧿", "der  Zeit", "ﬁn"):
            assert opened(name).ours.encode_inside(text) is None
