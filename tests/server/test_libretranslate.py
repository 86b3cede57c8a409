"""LibreTranslate's dialect on a live server: its sentences, codes and features."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import langcodes
import pytest

from model import BUNDLED, Model, load
from server.routes.translate import list_languages
from server.routes.translate_fields import DetectRequest, TranslateRequest
from server.text import documents
from server.text.languages import closest
from tests.server.live import Live, serve

BODY = {"q": "I am tired.", "source": "en", "target": "de"}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


@pytest.fixture(scope="module")
def from_language(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Return a way to the bundled model again, that takes its sources for another language."""

    def loaded(code: str) -> Model:
        folder = tmp_path_factory.mktemp("models") / code
        shutil.copytree(BUNDLED, folder)
        published = json.loads((folder / "tokenizer_config.json").read_text())
        published["source_lang"] = code
        (folder / "tokenizer_config.json").write_text(json.dumps(published))
        return load(folder, slots=4)

    return loaded


@pytest.fixture(scope="module")
def many(bundled: Model, from_language: Callable[[str], Model]) -> Iterator[Live]:
    others = [from_language(code) for code in ("zh", "pt-BR", "he", "nb")]
    with serve(bundled, *others) as running:
        yield running


# -- /translate ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"q": None}, "Invalid request: missing q parameter"),
        ({"q": ""}, "Invalid request: missing q parameter"),
        ({"q": []}, "Invalid request: missing q parameter"),
        ({"source": None}, "Invalid request: missing source parameter"),
        ({"source": ""}, "Invalid request: missing source parameter"),
        ({"target": ""}, "Invalid request: missing target parameter"),
        ({"source": "zz"}, "zz is not supported"),
        ({"target": "zz"}, "zz is not supported"),
        ({"target": "zz", "source": "auto"}, "zz is not supported"),
        ({"format": "xml"}, "xml format is not supported"),
        ({"alternatives": "two"}, "Invalid request: alternatives parameter is not a number"),
        ({"alternatives": ""}, "Invalid request: alternatives parameter is not a number"),
        ({"alternatives": [1]}, "Invalid request: alternatives parameter is not a number"),
        ({"alternatives": 16}, "Invalid request: alternatives parameter must be <= 15"),
        ({"alternatives": 10**30}, "Invalid request: alternatives parameter must be <= 15"),
        ({"alternatives": -1}, "Invalid request: alternatives parameter must be >= 0"),
        ({"q": ["a"] * 1001}, "Invalid request: request (1001) exceeds text limit (1000)"),
        ({"q": "a" * 20_001}, "Invalid request: request (20001) exceeds text limit (20000)"),
    ],
)
def test_what_cannot_be_served_is_refused_in_libretranslates_words(
    live: Live, change: dict[str, Any], sentence: str
) -> None:
    assert refusal(live.post("/translate", BODY | change)) == (400, sentence)


@pytest.mark.parametrize("content", [b"{", b"[1]", b'"a"', b"\xff"])
def test_what_is_not_a_json_object_is_refused_in_libretranslates_words(
    live: Live, content: bytes
) -> None:
    answer = live.client.post(
        "/translate", content=content, headers={"content-type": "application/json"}
    )
    assert refusal(answer) == (400, "Invalid JSON format")
    assert answer.json()["detail"].startswith("Invalid JSON format: ")


def test_a_pair_that_nobody_translates_is_named_as_libretranslate_names_it(many: Live) -> None:
    answer = many.post("/translate", BODY | {"target": "he"})
    sentence = "Hebrew (he) is not available as a target language from English (en)"
    assert refusal(answer) == (400, sentence)
    assert answer.json()["detail"] == sentence + "; en can be translated to: de"


def test_keys_are_asked_for_in_libretranslates_words(bundled: Model) -> None:
    missing = (400, "Please contact the server operator to get an API key")
    with serve(bundled, api_keys="alpha") as live:
        for path in ("/translate", "/detect", "/translate_file", "/suggest"):
            assert refusal(live.post(path, BODY)) == missing
            assert refusal(live.post(path, BODY | {"api_key": ""})) == missing
            wrong = live.post(path, BODY | {"api_key": "beta"})
            assert refusal(wrong) == (403, "Invalid API key")
            in_query = live.client.post(path, params={"api_key": "beta"})
            assert refusal(in_query) == (403, "Invalid API key")
        right = live.client.post("/translate", params=BODY | {"api_key": "alpha"})
        assert right.status_code == 200
        settings = live.client.get("/frontend/settings").json()
        assert (settings["apiKeys"], settings["keyRequired"]) == (True, True)


def test_a_full_queue_is_told_as_libretranslate_tells_a_limit(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = live.serving.translator().engine
    monkeypatch.setattr(engine, "_max_waiting", 0)
    answer = live.post("/translate", BODY)
    assert refusal(answer) == (429, "Slowdown: 0 segments wait already; retry in 1 s")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "way", ["json", "urlencoded", "multipart", "query", "query without a type"]
)
def test_fields_are_read_from_wherever_libretranslate_reads_them(live: Live, way: str) -> None:
    fields = {**BODY, "format": "text", "alternatives": "2", "api_key": ""}
    sent: dict[str, dict[str, Any]] = {
        "json": {"json": fields},
        "urlencoded": {"data": fields},
        "multipart": {"files": {name: (None, value) for name, value in fields.items()}},
        "query": {"params": fields, "headers": {"content-type": "application/json"}},
        "query without a type": {"params": fields},
    }
    answer = live.client.post("/translate", **sent[way])
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["translatedText", "alternatives"]
    assert 1 <= len(answer.json()["alternatives"]) <= 2


def test_line_ends_of_forms_become_plain_ones_and_those_of_json_stay(live: Live) -> None:
    text = "12\r\n13"
    assert live.client.post("/translate", data=BODY | {"q": text}).json() == {
        "translatedText": "12\n13"
    }
    assert live.post("/translate", BODY | {"q": text}).json() == {"translatedText": text}


def test_alternatives_are_a_list_or_a_list_of_lists_without_the_best_and_twins(live: Live) -> None:
    one = live.post("/translate", BODY | {"alternatives": 3}).json()
    assert 1 <= len(one["alternatives"]) <= 3
    texts = [one["translatedText"], *one["alternatives"], ""]
    assert len(set(texts)) == len(texts)
    two = live.post("/translate", BODY | {"q": ["I am tired.", "12"], "alternatives": 3}).json()
    assert two["alternatives"] == [one["alternatives"], []]
    for none in (0, "0", None):
        assert "alternatives" not in live.post("/translate", BODY | {"alternatives": none}).json()


def test_html_has_no_alternatives(live: Live) -> None:
    html = BODY | {"q": "I am tired.", "format": "html", "alternatives": 3}
    assert live.post("/translate", html).json()["alternatives"] == []
    assert live.post("/translate", html | {"q": ["12", "13"]}).json() == {
        "translatedText": ["12", "13"],
        "alternatives": [[], []],
    }


@pytest.mark.parametrize("format", [None, "", "text"])
def test_an_absent_or_empty_format_is_text(live: Live, format: str | None) -> None:
    assert live.post("/translate", BODY | {"q": "1 < 2", "format": format}).json() == {
        "translatedText": "1 < 2"
    }


def test_text_is_not_taken_for_markup(live: Live) -> None:
    """The original reads references in text too: `&lt;` would come out as a tag's beginning."""
    text = "1 < 2 & 3 > 2 &#60;\n<12>\n"
    assert live.post("/translate", BODY | {"q": text}).json() == {"translatedText": text}


def test_a_language_is_told_only_where_it_was_asked_for(live: Live) -> None:
    auto = BODY | {"source": "auto"}
    assert "detectedLanguage" not in live.post("/translate", BODY).json()
    shouted = live.post("/translate", BODY | {"source": "AUTO"}).json()
    assert shouted["detectedLanguage"]["language"] == "en"
    one = live.post("/translate", auto | {"q": "Where is the station?"}).json()
    assert set(one["detectedLanguage"]) == {"confidence", "language"}
    assert one["detectedLanguage"]["language"] == "en"
    emoji = live.post("/translate", auto | {"q": "🙂👍"}).json()
    assert emoji == {
        "translatedText": "🙂👍",
        "detectedLanguage": {"confidence": 0.0, "language": "en"},
    }
    both = live.post("/translate", auto | {"q": ["Where is the station?", "🙂"]}).json()
    assert [each["language"] for each in both["detectedLanguage"]] == ["en", "en"]
    assert both["detectedLanguage"][1]["confidence"] == 0.0


def test_terms_are_fields_of_a_translation_and_of_its_stream(live: Live) -> None:
    own = BODY | {"q": "12", "glossary": {"cat": "Kater"}, "protected": ["ACME"]}
    assert live.post("/translate", own).json() == {"translatedText": "12"}
    assert "event: done" in live.post("/translate/stream", own).text
    fields = TranslateRequest(**own, format="html")
    assert fields.rules.glossary == (("cat", "Kater"),)
    assert fields.rules.protected == ("ACME",)
    assert fields.rules.markup == "html"
    assert TranslateRequest(**BODY).rules.markup is None


def test_terms_come_out_as_asked_for_in_text_in_html_and_in_streams(live: Live) -> None:
    asked = BODY | {"q": "Where is the station?", "glossary": {"station": "Hauptbahnhof"}}
    plain = live.post("/translate", asked).json()
    assert plain["translatedText"].count("Hauptbahnhof") == 1
    assert plain["translatedText"] in live.post("/translate/stream", asked).text
    html = live.post("/translate", asked | {"format": "html"}).json()
    assert html["translatedText"] == plain["translatedText"]
    kept = BODY | {"q": ["Where is the ACME Rocket?"], "protected": ["ACME Rocket"]}
    (text,) = live.post("/translate", kept).json()["translatedText"]
    assert text.count("ACME Rocket") == 1


# -- languages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "model"),
    [
        ("zh", "zh"),
        ("ZH", "zh"),
        ("zh-Hans", "zh"),
        ("zh-hans", "zh"),
        ("zh-CN", "zh"),
        ("pb", "pt-BR"),
        ("PB", "pt-BR"),
        ("pt", "pt-BR"),
        ("pt-br", "pt-BR"),
        ("iw", "he"),
        ("he", "he"),
        ("no", "nb"),
        ("NB", "nb"),
        ("En", "en-de"),
        ("en-GB", "en-de"),
    ],
)
def test_codes_and_aliases_of_libretranslates_clients_find_their_model(
    many: Live, code: str, model: str
) -> None:
    before = many.metric("source_tokens_total", model=model)
    answer = many.post("/translate", BODY | {"q": "Hotel bar.", "source": code})
    assert answer.status_code == 200, answer.text
    assert many.metric("source_tokens_total", model=model) > before


def test_languages_come_out_as_tags_with_names_and_targets(many: Live) -> None:
    listed = {one["code"]: one for one in many.client.get("/languages").json()}
    assert sorted(listed) == ["de", "en", "he", "nb", "pt", "zh-Hans"]
    assert listed["zh-Hans"]["targets"] == ["de", "en", "zh-Hans"]
    assert listed["zh-Hans"]["name"] == "Chinese"
    assert listed["de"]["targets"] == ["de", "en"]
    for code in listed:
        assert many.post("/translate", BODY | {"q": "1", "source": code}).status_code == 200, code


def test_a_detected_language_comes_out_as_the_tag_that_languages_has(many: Live) -> None:
    (first, *_) = many.post("/detect", {"q": "我们今天晚上去饭店吃饭，你要一起来吗？"}).json()
    assert first["language"] == "zh-Hans"
    found = many.post("/translate", BODY | {"q": "我今天很累。你呢？", "source": "auto"}).json()
    assert found["detectedLanguage"]["language"] == "zh-Hans"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("zt", "zh-Hant"),
        ("ZT", "zh-Hant"),
        ("zh-TW", "zh-Hant"),
        ("zh-Hans", "zh"),
        ("pb", "pt-BR"),
        ("pt-BR", "pt-BR"),
        ("iw", "he"),
        ("no", "nb"),
    ],
)
def test_libretranslates_own_codes_mean_what_they_mean_there(code: str, found: str) -> None:
    assert closest(code, ["de", "he", "nb", "pt", "pt-BR", "zh", "zh-Hant"]) == found


def test_libretranslates_code_for_a_script_is_never_taken_for_another() -> None:
    assert closest("zt", ["zh", "de"]) is None
    assert closest("pb", ["pt", "de"]) == "pt"


def test_every_code_is_a_tag_that_browsers_parse() -> None:
    """`new Intl.Locale(code)` throws for anything else, and Rocket.Chat calls it for each."""
    own = ["ace-Arab", "de", "zh", "zh-Hant", "nb", "pt-BR", "sr-Latn", "ks-Deva"]
    listed = list_languages([{code: [other for other in own if other != code] for code in own}])
    for one in listed:
        for code in (one["code"], *one["targets"]):
            assert re.fullmatch(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?", code)
            assert langcodes.tag_is_valid(code)
            assert closest(code, own)


def test_languages_are_listed_once_and_whole(bundled: Model) -> None:
    with serve(bundled) as live:
        expected = [
            {"code": "de", "name": "German", "targets": ["de", "en"]},
            {"code": "en", "name": "English", "targets": ["de", "en"]},
        ]
        assert live.client.get("/languages").json() == expected
        listing = live.serving.listing
        assert live.client.get("/languages").json() == expected
        assert live.serving.listing is listing


@pytest.mark.parametrize("way", ["json", "data", "params"])
def test_detect_reads_json_forms_and_queries(live: Live, way: str) -> None:
    sent: dict[str, Any] = {way: {"q": "Guten Tag, wie geht es Ihnen?"}}
    found = live.client.post("/detect", **sent).json()
    assert found[0]["language"] == "de"
    assert 90 < found[0]["confidence"] <= 100


def test_detect_lists_at_most_three_languages_the_likeliest_first(many: Live) -> None:
    for text in ("Guten Tag!", "Hei, jeg bor i Oslo.", "a", "Restaurant Hotel"):
        found = many.post("/detect", {"q": text}).json()
        assert 1 <= len(found) <= 3
        sure = [each["confidence"] for each in found]
        assert sure == sorted(sure, reverse=True)


def test_what_tells_nothing_is_english_without_confidence(live: Live) -> None:
    for text in ("🙂", "12:30", "..."):
        assert live.post("/detect", {"q": text}).json() == [{"confidence": 0.0, "language": "en"}]


def test_detect_refuses_in_libretranslates_words(live: Live) -> None:
    missing = (400, "Invalid request: missing q parameter")
    assert refusal(live.post("/detect", {"q": ""})) == missing
    assert refusal(live.client.post("/detect")) == missing
    long = live.post("/detect", {"q": "a" * 20_001})
    assert refusal(long) == (400, "Invalid request: request (20001) exceeds text limit (20000)")


# -- what else its clients ask ---------------------------------------------------------------


def test_settings_hold_all_that_libretranslates_hold_and_are_true(live: Live) -> None:
    assert live.client.get("/frontend/settings").json() == {
        "apiKeys": False,
        "charLimit": 20_000,
        "filesTranslation": True,
        "frontendTimeout": 500,
        "keyRequired": False,
        "language": {
            "source": {"code": "auto", "name": "Auto Detect"},
            "target": {"code": "de", "name": "German"},
        },
        "suggestions": False,
        "supportedFilesFormat": list(documents.EXTENSIONS),
    }


def test_suggestions_are_refused_in_libretranslates_words(live: Live) -> None:
    form = {"q": "a", "s": "b", "source": "en", "target": "de"}
    for answer in (live.client.post("/suggest", data=form), live.post("/suggest", form)):
        assert refusal(answer) == (403, "Suggestions are disabled on this server.")


def test_the_specification_holds_routes_and_fields_that_exist(live: Live) -> None:
    spec = live.client.get("/spec").json()
    assert spec["swagger"] == "2.0"
    routes = live.client.get("/openapi.json").json()["paths"]
    file = routes["/translate_file"]["post"]["requestBody"]["content"]["multipart/form-data"]
    fields = {
        "/translate": set(TranslateRequest.model_fields),
        "/detect": set(DetectRequest.model_fields),
        "/translate_file": set(file["schema"]["properties"]),
    }
    needed = {
        "/translate": {"q", "source", "target"},
        "/detect": {"q"},
        "/translate_file": {"file", "source", "target"},
    }
    for path, operations in spec["paths"].items():
        ((method, operation),) = operations.items()
        assert method in routes[path], path
        named = {one["name"]: one["required"] for one in operation.get("parameters", [])}
        assert set(named) <= fields.get(path, set()), path
        assert {name for name in named if named[name]} == needed.get(path, set()), path
    settings = live.client.get("/frontend/settings").json()
    described = spec["paths"]["/frontend/settings"]["get"]["responses"]["200"]["schema"]
    assert set(described["properties"]) == set(settings)
    unlisted = {"/translate/stream", "/spec", "/suggest", "/download_file/{name}"}
    ours = {p for p, o in routes.items() for each in o.values() if _is_libretranslates(each)}
    assert ours - unlisted == set(spec["paths"]) - {"/health"}


def _is_libretranslates(operation: dict[str, Any]) -> bool:
    return bool({"translation", "libretranslate"} & set(operation["tags"]))


def test_the_specifications_title_names_us_unless_it_is_set(bundled: Model, live: Live) -> None:
    title = live.client.get("/spec").json()["info"]["title"]
    assert title == "Stele (speaks LibreTranslate's API)"
    with serve(bundled, spec_title="LibreTranslate") as other:
        assert other.client.get("/spec").json()["info"]["title"] == "LibreTranslate"


def test_without_the_dialect_translations_are_served_and_the_rest_is_not(bundled: Model) -> None:
    with serve(bundled, dialects="none") as live:
        assert live.post("/translate", BODY).status_code == 200
        assert live.post("/detect", {"q": "a"}).status_code == 200
        assert live.client.get("/languages").status_code == 200
        for path in ("/frontend/settings", "/spec", "/download_file/a"):
            assert live.client.get(path).status_code == 404
        for path in ("/translate_file", "/suggest"):
            assert live.post(path, {}).status_code == 404
