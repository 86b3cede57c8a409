"""What LibreTranslate's clients send, replayed as each sends it, and what each reads of the answer.

libretranslatepy runs as it is published; the others' requests are written down from their sources.
"""

import json
import urllib.error
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from libretranslatepy import LibreTranslateAPI

from model import Model
from tests.server.live import Live, serve

ENGLISH, GERMAN = "Where is the station?", "Wo ist der Bahnhof?"


@pytest.fixture(scope="module")
def keyed(bundled: Model) -> Iterator[Live]:
    with serve(bundled, api_keys="alpha") as running:
        yield running


# -- libretranslatepy ------------------------------------------------------------------------


def test_libretranslatepy_translates_detects_and_lists(live: Live) -> None:
    client = LibreTranslateAPI(live.url)
    assert "Bahnhof" in client.translate(ENGLISH, "en", "de")
    assert client.detect(GERMAN)[0]["language"] == "de"
    # It sends a body with this GET.
    assert {one["code"]: one["name"] for one in client.languages()} == {
        "de": "German",
        "en": "English",
    }
    assert client.translate("12\n13", "en", "de") == "12\n13"


def test_libretranslatepy_sends_its_key_and_sees_refusals(keyed: Live) -> None:
    client = LibreTranslateAPI(keyed.url + "/", api_key="alpha")
    assert "Bahnhof" in client.translate(ENGLISH, "en", "de", timeout=30)
    assert client.detect(GERMAN)[0]["language"] == "de"
    assert len(client.languages()) == 2
    with pytest.raises(urllib.error.HTTPError) as refused:
        LibreTranslateAPI(keyed.url, api_key="beta").translate(ENGLISH, "en", "de")
    with refused.value as answer:
        assert (answer.code, json.loads(answer.read())["error"]) == (403, "Invalid API key")


# -- requests as others send them ------------------------------------------------------------


def test_mastodon(keyed: Live) -> None:
    """LibreTranslate's translation service: a list of html, targets of each language."""
    body = {
        "q": ["<p>Where is the station?</p>", "12", ""],
        "source": "en",
        "target": "de",
        "format": "html",
        "api_key": "alpha",
    }
    headers = {"content-type": "application/json"}
    answer = keyed.client.post("/translate", content=json.dumps(body), headers=headers).json()
    assert isinstance(answer["translatedText"], list)
    assert len(answer["translatedText"]) == 3
    assert "detectedLanguage" not in answer
    auto = keyed.post("/translate", body | {"source": "auto"}).json()
    assert [set(each) >= {"language"} for each in auto["detectedLanguage"]] == [True] * 3
    listed = keyed.client.get("/languages", headers=headers).json()
    targets = {one["code"]: [t for t in one["targets"] if t != one["code"]] for one in listed}
    assert targets == {"de": ["en"], "en": ["de"]}
    assert keyed.post("/translate", body | {"api_key": "beta"}).status_code == 403


def test_weblate(keyed: Live) -> None:
    """A list without a format, as many back, in order; `api_key` is empty where there is none."""
    texts = ["I am tired.", ENGLISH, "%d"]
    body = {"api_key": "alpha", "q": texts, "source": "en", "target": "de"}
    translated = keyed.post("/translate", body).json()["translatedText"]
    assert len(translated) == 3
    assert "Bahnhof" in translated[1]
    assert {one["code"] for one in keyed.client.get("/languages").json()} == {"de", "en"}


def test_discourse(live: Live) -> None:
    """Forms with format=html and an empty key; failures are JSON."""
    found = live.client.post("/detect", data={"q": GERMAN, "api_key": ""}).json()
    assert found[0]["language"] == "de"
    form = {"q": "12", "source": "de", "target": "en", "format": "html", "api_key": ""}
    assert live.client.post("/translate", data=form).json()["translatedText"] == "12"
    refused = live.client.post("/translate", data=form | {"target": "iw"})
    assert refused.status_code == 400
    assert refused.json()["error"] == "iw is not supported"


def test_rocket_chat(live: Live) -> None:
    """Lines of a message as a list, empty ones among them; each has its place afterwards."""
    lines = ["I am tired.", "", ENGLISH, " "]
    body = {"q": lines, "source": "auto", "target": "de", "format": "text"}
    answer = live.post("/translate", body).json()
    assert [bool(text.strip()) for text in answer["translatedText"]] == [True, False, True, False]
    assert answer["translatedText"][1::2] == ["", " "]
    assert len(answer["detectedLanguage"]) == 4


def test_wagtail_localize(live: Live) -> None:
    body = {"q": ["12", "13"], "source": "en", "target": "de", "format": "html"}
    assert live.post("/translate", body).json()["translatedText"] == ["12", "13"]


def test_gnome_dialect(bundled: Model) -> None:
    """It insists on a title, which is opt-in here; it reads features, then asks."""
    with serve(bundled, spec_title="LibreTranslate", api_keys="alpha") as live:
        assert live.client.get("/spec").json()["info"]["title"] == "LibreTranslate"
        settings = live.client.get("/frontend/settings").json()
        assert isinstance(settings["charLimit"], int)
        assert (settings["suggestions"], settings["apiKeys"], settings["keyRequired"]) == (
            False,
            True,
            True,
        )
        assert live.client.get("/languages").json()[0]["code"] == "de"
        found = live.client.post("/detect", data={"q": GERMAN, "api_key": "alpha"}).json()
        assert found[0]["language"] == "de"
        body = {"q": ENGLISH, "source": "en", "target": "de", "api_key": "alpha"}
        assert "detectedLanguage" not in live.post("/translate", body).json()
        auto = live.post("/translate", body | {"source": "auto"}).json()
        assert auto["detectedLanguage"]["language"] == "en"
        errors = {
            "Invalid API key": {"api_key": "beta"},
            "is not supported": {"target": "zz"},
            "exceeds text limit": {"q": "a" * 20_001},
        }
        for sentence, change in errors.items():
            assert sentence in live.post("/translate", body | change).json()["error"]
        form = {"q": "a", "s": "b", "source": "en", "target": "de", "api_key": "alpha"}
        assert live.client.post("/suggest", data=form).status_code == 403


def test_linguist_calls_from_a_browser_where_its_origin_is_allowed(bundled: Model) -> None:
    origin = {"origin": "chrome-extension://gbefmodhlophhakmoecijeppjblibmie"}
    preflight = {
        **origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    body = {"q": ENGLISH, "source": "en", "target": "de"}
    for allowed in ("*", origin["origin"]):
        with serve(bundled, cors_origin=allowed) as live:
            asked = live.client.options("/translate", headers=preflight)
            assert asked.status_code == 200
            assert asked.headers["access-control-allow-origin"] == allowed
            assert "POST" in asked.headers["access-control-allow-methods"]
            assert "content-type" in asked.headers["access-control-allow-headers"].lower()
            answer = live.post("/translate", body, headers=origin)
            assert answer.headers["access-control-allow-origin"] == allowed
            assert "Bahnhof" in answer.json()["translatedText"]


def test_no_browser_calls_where_no_origin_is_allowed(live: Live) -> None:
    """Unlike the original, which lets every page on the web use it."""
    origin = {"origin": "https://a.example", "access-control-request-method": "POST"}
    asked = live.client.options("/translate", headers=origin)
    assert "access-control-allow-origin" not in asked.headers


def test_subtitle_edit(live: Live) -> None:
    """One text as JSON; it reads a plain string."""
    content = '{"q": "Where is the station?\\nI am tired.", "source": "en", "target": "de"}'
    headers = {"content-type": "application/json"}
    translated = live.client.post("/translate", content=content, headers=headers).json()
    assert isinstance(translated["translatedText"], str)
    assert len(translated["translatedText"].split("\n")) == 2


def test_deep_translator(keyed: Live) -> None:
    """Everything is in the query of a POST without a body."""
    params = {"q": ENGLISH, "source": "en", "target": "de", "format": "text", "api_key": "alpha"}
    answer = httpx.post(keyed.url + "/translate", params=params)
    assert "Bahnhof" in answer.json()["translatedText"]
    wrong = httpx.post(keyed.url + "/translate", params=params | {"api_key": "beta"})
    assert wrong.status_code == 403


@pytest.mark.parametrize("extra", [{}, {"format": "text", "alternatives": 0, "api_key": ""}])
def test_others_send_json_and_read_a_sentence_on_failure(live: Live, extra: dict[str, Any]) -> None:
    """Lingarr, Bazarr, RSSBox, SillyTavern, Crow and Obsidian's plugins."""
    body = {"q": ENGLISH, "source": "en", "target": "de", **extra}
    assert "Bahnhof" in live.post("/translate", body).json()["translatedText"]
    assert isinstance(live.post("/translate", body | {"target": "zz"}).json()["error"], str)
