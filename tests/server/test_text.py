import random

import langcodes
import pytest
from langcodes import language_distance

from server.text.cutting import cut, spaced
from server.text.languages import LanguageDetector, closest, english_name
from server.text.rules import PLAIN
from server.text.segments import Segment


@pytest.mark.parametrize(
    ("text", "translatable"),
    [
        ("How are you? I am fine.", ["How are you?", "I am fine."]),
        ("Mr. Smith came.", ["Mr. Smith came."]),
        ("One.\n\n  Two.  \r\nThree", ["One.", "Two.", "Three"]),
        ("  leading and trailing  ", ["leading and trailing"]),
        ("", []),
        (" \n\t", []),
        ("12:30", []),
        ("🙂 👍🏽", []),
        ("Hello 🙂", ["Hello"]),
    ],
)
def test_sentences_are_translatable_and_what_is_between_them_is_not(
    text: str, translatable: list[str]
) -> None:
    assert [piece.text for piece in cut(text, "en", PLAIN) if piece.is_translatable] == translatable


def test_nothing_is_ever_lost() -> None:
    chance = random.Random(5)
    alphabet = "aÄ.!? \n\r\t\u2028\u00a0\x0b\x0c\x1c\x85\u200b\ufeff\0„“\"'()1🙂漢。"
    for _ in range(2000):
        text = "".join(chance.choices(alphabet, k=chance.randint(0, 40)))
        for language in ("en", "de", "xx"):
            assert "".join(piece.text for piece in cut(text, language, PLAIN)) == text


@pytest.mark.parametrize(
    ("text", "source", "target", "spaces"),
    [
        ("这是一个句子。这是另一个句子。", "zh", "en", 1),
        ("これは文です。これも文です！\nこれも。", "ja", "de", 1),
        ("这是一个句子。 这是另一个句子。", "zh", "en", 0),
        ("这是一个句子。这是另一个句子。", "zh", "ja", 0),
        ("I am here. So are you.", "en", "de", 0),
    ],
)
def test_a_target_with_spaces_has_them_between_sentences_that_had_none(
    text: str, source: str, target: str, spaces: int
) -> None:
    pieces = cut(text, source, PLAIN)
    found = [*spaced(pieces, target)]
    assert len(found) - len(pieces) == spaces
    assert "".join(piece.text for piece in found).replace(" ", "") == text.replace(" ", "")


def test_margins_are_kept_apart_from_the_sentence() -> None:
    assert cut("  Hi.\n", "en", PLAIN) == [
        Segment("  ", is_translatable=False),
        Segment("Hi.", is_translatable=True),
        Segment("\n", is_translatable=False),
    ]


def test_the_detector_answers_only_among_its_languages() -> None:
    detector, among = LanguageDetector(), ["de", "en"]

    for text in ("Bonjour tout le monde", "Wo ist der Bahnhof?", "Where is it?"):
        ranked = detector.rank(text, among)
        assert {each.language for each in ranked} == {"de", "en"}
        assert sum(each.confidence for each in ranked) == pytest.approx(1)
    assert detector.rank("Wo ist der Bahnhof?", among)[0].language == "de"
    for text in ("12 !", "漢字", "https://example.com/where/is/it {name}"):
        assert [each.confidence for each in detector.rank(text, among)] == [0]


def test_a_language_the_detector_does_not_know_is_never_named() -> None:
    ranked = LanguageDetector().rank("Wo ist der Bahnhof?", ["de", "tlh"])
    assert [each.language for each in ranked] == ["de"]


def test_languages_have_english_names() -> None:
    assert (english_name("de"), english_name("pt-BR")) == ("German", "Portuguese (Brazil)")


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("pt-BR", "pt"),
        ("zh-TW", "zh-Hant"),
        ("zh_CN", "zh"),
        ("en-US", "en"),
        ("deu_Latn", "de"),
        ("iw", "he"),
        ("lb", None),  # near German, but another language
        ("xx", None),
        ("not a tag", None),
        ("x" * 100_000, None),
    ],
)
def test_a_variety_is_taken_for_its_language_and_for_no_other(code: str, meant: str | None) -> None:
    assert closest(code, ["de", "en", "he", "pt", "zh", "zh-Hant"]) == meant


def test_tags_that_clients_make_up_are_not_remembered_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caches = (
        langcodes.Language._PARSE_CACHE,
        langcodes.Language._INSTANCES,
        language_distance._DISTANCE_CACHE,
    )
    assert closest("de-AT", ["de", "en"]) == "de"
    kept = [len(cache) for cache in caches]
    monkeypatch.setattr("server.text.languages._Bounded._FULL", 0)
    for tag in ("de-x-madeup", "de-Abcd-ZZ", "en-x-other"):
        assert closest(tag, ["de", "en"]) in (tag[:2], None)
    assert [len(cache) for cache in caches] == kept
