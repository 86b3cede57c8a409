"""LibreTranslate's dialect on a live server: its sentences, codes, features and files."""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import langcodes
import pytest

from model import BUNDLED, Model, load
from server.decoding_fields import DecodingFields
from server.errors import QueueFull
from server.routes.translate import list_languages
from server.routes.translate_fields import DetectRequest, TranslateRequest
from server.routing import prepare
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


# -- files -----------------------------------------------------------------------------------


def upload(live: Live, name: str, content: bytes, **fields: str) -> httpx.Response:
    form = {"source": "en", "target": "de", **fields}
    return live.client.post("/translate_file", data=form, files={"file": (name, content)})


def fetched(answer: httpx.Response, live: Live) -> httpx.Response:
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["translatedFileUrl"]
    link = answer.json()["translatedFileUrl"]
    assert link.startswith(f"{live.url}/download_file/")
    file = httpx.get(link)
    assert file.status_code == 200
    return file


def test_a_text_file_is_translated_and_fetched_under_a_safe_name(live: Live) -> None:
    file = fetched(upload(live, "notes.txt", b"I am tired.\r\n\r\n  12\n"), live)
    expected = live.post("/translate", BODY).json()["translatedText"]
    assert file.content == f"{expected}\r\n\r\n  12\n".encode()
    assert file.headers["content-type"] == "text/plain; charset=utf-8"
    assert file.headers["content-disposition"] == 'attachment; filename="notes_de.txt"'
    assert file.headers["x-content-type-options"] == "nosniff"
    assert file.headers["cache-control"] == "private, no-store"


def test_subtitles_keep_their_numbers_and_times(live: Live) -> None:
    subtitles = "1\r\n00:00:01,000 --> 00:00:02,500\r\nI am tired.\r\n\r\n2\r\n"
    subtitles += "00:00:03,000 --> 00:00:04,000\r\nWhere is Tom?\r\n"
    file = fetched(upload(live, "film.srt", subtitles.encode()), live)
    lines, before = file.text.split("\r\n"), subtitles.split("\r\n")
    assert [lines[i] for i in (0, 1, 3, 4, 5, 7)] == [before[i] for i in (0, 1, 3, 4, 5, 7)]
    one = live.post("/translate", BODY).json()["translatedText"]
    assert lines[2] == one
    assert file.headers["content-type"] == "application/x-subrip; charset=utf-8"


def test_a_page_is_translated_and_never_shown_as_one(live: Live) -> None:
    file = fetched(upload(live, "page.HTML", b"12\n"), live)
    assert file.text == "12\n"
    assert file.headers["content-type"] == "text/html; charset=utf-8"
    assert file.headers["content-disposition"] == 'attachment; filename="page_de.html"'


def test_a_files_language_is_told_once_for_all_of_it(live: Live) -> None:
    german = b"Guten Tag, wie geht es Ihnen heute?\nNein.\n"
    file = fetched(upload(live, "a.txt", german, source="auto", target="en"), live)
    lines = live.post("/translate", {"q": german.decode(), "source": "de", "target": "en"}).json()[
        "translatedText"
    ]
    assert file.text == lines


def test_a_pages_language_is_told_from_what_people_read(live: Live) -> None:
    page = b"<style>.where { is: the } .station { and: more }</style><p>Wo ist der Bahnhof?</p>"
    file = fetched(upload(live, "a.html", page, source="auto", target="en"), live)
    assert "station?</p>" in file.text


@pytest.mark.parametrize("content", [b"", b"\n\n", b"12\n", "\ufeff".encode(), "🙂".encode()])
def test_a_file_without_words_comes_back_as_it_was(live: Live, content: bytes) -> None:
    assert fetched(upload(live, "a.txt", content), live).content == content


def test_a_byte_order_mark_stays(live: Live) -> None:
    file = fetched(upload(live, "a.txt", "\ufeffI am tired.".encode()), live)
    expected = live.post("/translate", BODY).json()["translatedText"]
    assert file.content == f"\ufeff{expected}".encode()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd.txt", "passwd_de.txt"),
        ("C:\\Users\\me\\a.txt", "a_de.txt"),
        ('a"; filename="b.exe.txt', "a_22_filename_22b_exe_de.txt"),  # sent as %22
        ("Ü ber\r\nX: y.txt", "ber_0D_0AX_y_de.txt"),
        ("日本語.txt", "translated_de.txt"),
        ("x" * 300 + ".TXT", "x" * 80 + "_de.txt"),
    ],
)
def test_a_clients_name_for_a_file_is_not_trusted(live: Live, sent: str, kept: str) -> None:
    file = fetched(upload(live, sent, b"12"), live)
    assert file.headers["content-disposition"] == f'attachment; filename="{kept}"'
    assert str(file.url).endswith(f".{kept}")


def test_files_that_cannot_be_served_are_refused_in_libretranslates_words(live: Live) -> None:
    def refused(answer: httpx.Response) -> str:
        status, sentence = refusal(answer)
        assert status == 400
        return sentence

    missing = "Invalid request: missing file parameter"
    assert refused(live.client.post("/translate_file")) == missing
    assert refused(live.post("/translate_file", {"file": "a.txt"} | BODY)) == missing
    assert refused(live.client.post("/translate_file", data={"file": "a"})) == missing
    file = {"file": ("a.txt", b"12")}
    answer = live.client.post("/translate_file", files=file)
    assert refused(answer) == "Invalid request: missing source parameter"
    answer = live.client.post("/translate_file", files=file, data={"source": "en"})
    assert refused(answer) == "Invalid request: missing target parameter"
    for name in ("a.pdf", "a", ".txt", "a.txt.exe"):
        answer = upload(live, name, b"12")
        assert refused(answer) == "Invalid request: file format not supported"
        assert ".srt" in answer.json()["detail"]
    part = '--x\r\ncontent-disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--x--\r\n'
    nameless = live.client.post(
        "/translate_file",
        params={"source": "en", "target": "de"},
        content=part,
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert refused(nameless) == "Invalid request: empty file"
    assert refused(upload(live, "a.txt", b"12", target="zz")) == "zz is not supported"
    assert refused(upload(live, "a.txt", b"", source="zz")) == "zz is not supported"
    latin = refused(upload(live, "a.txt", "12 ü".encode("latin-1")))
    assert latin == "Invalid request: the file is not UTF-8 (byte 3); save it as UTF-8"
    assert "not a field" in refused(upload(live, "a.txt", b"12", format="html"))
    timed = b"WEBVTT\n\n00:01.000 --> 00:02.000\n<c.red>I am</c> tired.\n"
    assert "4" in refused(upload(live, "a.vtt", timed))  # the line


def test_a_form_holds_one_file_and_only_where_files_are_read(live: Live) -> None:
    two = [("file", ("a.txt", b"12")), ("other", ("b.txt", b"12"))]
    answer = live.client.post("/translate_file", data=BODY, files=two)
    assert "Maximum number of files is 1" in answer.json()["error"]
    answer = live.client.post("/translate", data=BODY, files={"file": ("a.txt", b"12")})
    assert "Maximum number of files is 0" in answer.json()["error"]
    broken = live.client.post(
        "/translate_file", content=b"--", headers={"content-type": "multipart/form-data"}
    )
    assert refusal(broken) == (400, "Invalid request: Missing boundary in multipart.")


def test_a_large_file_stays_in_memory(bundled: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser would write what is above a megabyte to a disk that may be read-only."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", refuse)
    content = b"12345678901234567890123456789012345678901234567890\n" * 40_000
    with serve(bundled, max_body_bytes=3 * 2**20) as live:
        assert fetched(upload(live, "a.txt", content), live).content == content
        too_large = upload(live, "a.txt", content * 2)
        assert refusal(too_large) == (400, "the body exceeds the limit of 3145728 bytes")


def test_a_file_of_more_texts_than_a_request_may_hold_is_translated_in_turns(
    bundled: Model,
) -> None:
    lines = [
        f"{number}\n00:00:0{number},000 --> 00:00:0{number},500\nYes.\n" for number in range(9)
    ]
    with serve(bundled, max_texts=2) as live:
        file = fetched(upload(live, "a.srt", "\n".join(lines).encode()), live)
    assert file.text.count("\n") == "\n".join(lines).count("\n")
    assert "Yes" not in file.text


@pytest.mark.parametrize(("refused", "status"), [(1, 429), (2, 200), (3, 200)])
def test_a_full_queue_refuses_a_file_at_its_beginning_and_delays_it_later(
    bundled: Model, monkeypatch: pytest.MonkeyPatch, refused: int, status: int
) -> None:
    calls = itertools.count(1)

    def some(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == refused:
            raise QueueFull("many segments wait already; retry in 0 s", 0.0)
        return prepare(*args, **kwargs)

    monkeypatch.setattr("server.routes.libretranslate.prepare", some)
    cues = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},500\n- Yes.\n- No.\n" for n in range(3)]
    with serve(bundled, max_texts=2) as live:
        answer = upload(live, "a.srt", "\n".join(cues).encode())
        assert answer.status_code == status
        if status == 200:
            assert fetched(answer, live).text.count("\n") == "\n".join(cues).count("\n")


def test_a_file_that_takes_too_long_is_given_up(
    bundled: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.chain([0.0, 1.0], itertools.repeat(31.0))
    monkeypatch.setattr("server.routes.libretranslate.monotonic", lambda: next(seconds))
    cues = "1\n00:00:01,000 --> 00:00:02,500\n- Yes.\n- No.\n"
    with serve(bundled, max_texts=1) as live:
        answer = upload(live, "a.srt", cues.encode())
    assert refusal(answer) == (
        504,
        "the file was not translated within its time; send it in parts",
    )


def test_a_file_is_gone_where_nobody_kept_it(live: Live, bundled: Model) -> None:
    for name in ("a.txt", "..%2f..%2fetc%2fpasswd", "%00"):
        answer = live.client.get(f"/download_file/{name}")
        assert answer.status_code == 404
        assert "error" in answer.json()
    with serve(bundled, max_file_store_bytes=1000) as small:
        first = upload(small, "a.txt", b"1").json()["translatedFileUrl"]
        assert httpx.get(first).status_code == 200
        second = upload(small, "a.txt", b"2").json()["translatedFileUrl"]
        assert (httpx.get(first).status_code, httpx.get(second).status_code) == (404, 200)
        assert "limit of 1000" in upload(small, "a.txt", b"1" * 600).json()["error"]


def test_files_are_refused_where_none_may_be_kept(bundled: Model) -> None:
    with serve(bundled, max_file_store_bytes=0) as live:
        answer = upload(live, "a.txt", b"12")
        assert refusal(answer) == (403, "Files translation are disabled on this server.")
        settings = live.client.get("/frontend/settings").json()
        assert (settings["filesTranslation"], settings["supportedFilesFormat"]) == (False, [])


def test_a_link_says_how_the_server_was_reached(live: Live) -> None:
    proxied = {"x-forwarded-proto": "https", "host": "translate.example"}
    answer = live.client.post(
        "/translate_file", data=BODY, files={"file": ("a.txt", b"12")}, headers=proxied
    )
    assert "not a field" in answer.json()["error"]  # q is none of a file's
    form = {"source": "en", "target": "de"}
    answer = live.client.post(
        "/translate_file", data=form, files={"file": ("a.txt", b"12")}, headers=proxied
    )
    assert answer.json()["translatedFileUrl"].startswith("https://translate.example/download_file/")


def test_a_file_is_private_to_whoever_has_its_link_where_keys_are_needed(bundled: Model) -> None:
    with serve(bundled, api_keys="alpha") as live:
        missing = upload(live, "a.txt", b"12")
        assert missing.status_code == 400
        answer = upload(live, "a.txt", b"12", api_key="alpha")
        assert httpx.get(answer.json()["translatedFileUrl"]).content == b"12"


def test_warnings_of_a_file_name_its_lines(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    short = partial(DecodingFields, max_new_tokens=2)
    monkeypatch.setattr("server.routes.libretranslate.DecodingFields", short)
    subtitles = "1\n00:00:01,000 --> 00:00:02,500\nI am very tired today.\n"
    answer = upload(live, "a.srt", subtitles.encode()).json()
    cut = "segment 0 was cut at 2 tokens; send a larger max_new_tokens"
    assert [each.partition(": ")[2] for each in answer["warnings"]] == [cut]
    assert re.match(r"line [13]: ", answer["warnings"][0])
