import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text.languages import LanguageDetector
from server.text.scripts import chinese_scripts, main_script, scripts

DETECTOR = LanguageDetector()
MANY = [
    *("ar", "bg", "bo", "de", "el", "en", "es", "fa", "fr", "he", "hr", "ja", "ko", "nb", "ru"),
    *("sr", "th", "uk", "yue", "zh", "zh-Hant"),
]


def detected(text: str, among: list[str] = MANY) -> str:
    return DETECTOR.rank(text, among)[0].language


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Wort", "Latn"),
        ("Слово", "Cyrl"),
        ("漢字", "Hani"),
        ("漢字です", "Jpan"),
        ("ﾊﾝｶｸ", "Jpan"),
        ("한글", "Hang"),
        ("iPhone 15 Proを買いました", "Jpan"),
        ("I like 你好 very much", "Latn"),
        ("他的名字是ハナ,我们都知道他从很远的地方来到这里学习", "Hani"),
        ("12 🙂!", None),
        ("", None),
    ],
)
def test_a_texts_script_is_that_of_most_of_it(text: str, script: str | None) -> None:
    assert main_script(text)[0] == script


def test_languages_have_their_scripts() -> None:
    assert scripts("de") == scripts("deu_Latn") == {"Latn"}
    assert scripts("zh") == scripts("zh-Hant") == scripts("zho_Hant") == scripts("yue") == {"Hani"}
    assert scripts("ja") == scripts("jpn_Jpan") == {"Jpan"}
    assert scripts("ko") == {"Hang"}
    assert scripts("sr") == {"Cyrl", "Latn"}
    assert scripts("srp_Cyrl") == {"Cyrl"}
    assert scripts("ace-Arab") == {"Arab"}
    assert scripts("ROMANCE") == frozenset()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("안녕", "ko"),
        ("東京に行く", "ja"),
        ("駅前", "ja"),  # has a character that only Japanese has
        ("我们学习汉语", "zh"),
        ("我們學習漢語", "zh-Hant"),
        ("佢唔喺度", "yue"),
        ("中", "zh"),
        ("Καλημέρα", "el"),
        ("שלום", "he"),
        ("ไทย", "th"),
        ("བོད་ཡིག", "bo"),
        ("Привіт, як справи?", "uk"),
        ("Это не она", "ru"),
        ("شكرا جزيلا", "ar"),
        ("Jeg vet ikke hva du mener", "nb"),
        ("Dobar dan, kako ste?", "hr"),
        ("the", "en"),
        ("Straße", "de"),
        ("¿Dónde está?", "es"),
    ],
)
def test_a_short_text_is_in_a_language_of_its_script(text: str, language: str) -> None:
    assert detected(text) == language


def test_a_script_that_only_one_language_has_is_certain() -> None:
    assert [(d.language, d.confidence) for d in DETECTOR.rank("да", ["en", "ru"])] == [("ru", 1.0)]
    (mixed,) = DETECTOR.rank("Windows установлен", ["en", "ru"])
    assert mixed.language == "ru"
    assert 0.5 < mixed.confidence < 1


def test_languages_of_other_scripts_are_not_named() -> None:
    assert {d.language for d in DETECTOR.rank("Guten Tag", MANY)} == {
        *("de", "en", "es", "fr", "hr", "nb", "sr")
    }


def test_han_without_kana_may_be_japanese_where_it_is_short() -> None:
    among = ["en", "ja", "zh"]
    short, long = (
        {d.language: d.confidence for d in DETECTOR.rank(text, among)}
        for text in ("中国", "中国人民的生活越来越好")
    )
    assert short["zh"] > short["ja"] > long["ja"] > 0
    assert detected("中国", ["en", "ja"]) == "ja"
    assert detected("東京に", ["en", "zh"]) == "en"  # which is a guess
    assert DETECTOR.rank("東京に", ["en", "zh"])[0].confidence == 0


def test_models_own_codes_are_known() -> None:
    own = ["ben_Beng", "deu_Latn", "eng_Latn", "jpn_Jpan", "nob_Latn", "zho_Hans", "zho_Hant"]
    assert detected("Wo ist der Bahnhof?", own) == "deu_Latn"
    assert detected("Jeg vet ikke hva du mener", own) == "nob_Latn"
    assert detected("我們學習漢語", own) == "zho_Hant"
    assert detected("駅前", own) == "jpn_Jpan"
    assert detected("12", own) == "eng_Latn"


def test_of_a_languages_varieties_the_plain_one_is_named() -> None:
    assert detected("سلام دوست من، حال شما چطور است؟", ["fa", "fa-AF", "ar", "acm"]) == "fa"
    assert detected("O meu irmão não está aqui hoje", ["en", "pt", "pt-BR"]) == "pt"
    assert detected("O meu irmão não está aqui hoje", ["en", "pt-BR"]) == "pt-BR"


@pytest.mark.parametrize(
    "text",
    [
        "Bitte https://www.example.com/this/is/where/the/english/words/are öffnen",
        "Hallo {the_name_of_the_user}, {count, plural, one {one item is} other {items are}} da",
        "Das ist <span class='the english words of the markup'>wichtig</span>",
        "Schreib an the.english.words@where.are.the.words.com oder @the_english_user",
    ],
)
def test_placeholders_and_markup_do_not_count(text: str) -> None:
    assert detected(text, ["de", "en"]) == "de"


def test_text_of_placeholders_alone_is_a_guess() -> None:
    (guess,) = DETECTOR.rank("https://beispiel.de/Straße {größe} 🙂", ["de", "en"])
    assert (guess.language, guess.confidence) == ("en", 0)
    (guess,) = DETECTOR.rank("%s", ["fo", "es", "de"])
    assert (guess.language, guess.confidence) == ("es", 0)  # which most of them write


def test_groups_of_languages_are_never_named() -> None:
    assert detected("Wo ist der Bahnhof?", ["ROMANCE", "de"]) == "de"
    assert DETECTOR.rank("12", ["ROMANCE"])[0].confidence == 0


def test_a_longer_text_is_surer() -> None:
    words = ["Wo", "ist", "denn", "hier", "der", "nächste", "Bahnhof,", "bitte?"]
    sure = [DETECTOR.rank(" ".join(words[:n]), ["de", "en", "nl"])[0].confidence for n in (1, 3, 8)]
    assert sure == sorted(sure)
    assert sure[0] < 0.9 < sure[-1]


def test_simplified_and_traditional_characters_are_told_apart() -> None:
    assert chinese_scripts("我们学习汉语")[0] > 0.9
    assert chinese_scripts("我們學習漢語")[1] > 0.8
    assert chinese_scripts("中文")[0] > 0.5


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.text(max_size=40), st.sampled_from([MANY, ["de", "en"], ["ROMANCE", "tlh"], ["zho_Hant"]])
)
def test_any_text_has_a_detection_among_the_languages(text: str, among: list[str]) -> None:
    ranked = DETECTOR.rank(text, among)
    assert {each.language for each in ranked} <= set(among)
    confidences = [each.confidence for each in ranked]
    assert confidences == sorted(confidences, reverse=True)
    assert 0 <= sum(confidences) <= 1 + 1e-9
