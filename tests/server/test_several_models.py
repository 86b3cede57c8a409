"""Several models in one server: chosen by pair or name, loaded one after the other."""

import asyncio
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from model import BUNDLED, Model, load
from server.app import load_into
from server.metrics import Metrics
from server.serving import Serving
from server.settings import Settings
from tests.server.live import Live, gated, serve

GERMAN, FRENCH = "Ich bin müde.", "Nous allons au restaurant ce soir."


@pytest.fixture(scope="module")
def french(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The bundled model again, that takes its sources for French."""
    folder = tmp_path_factory.mktemp("models") / "french"
    shutil.copytree(BUNDLED, folder)
    published = json.loads((folder / "tokenizer_config.json").read_text())
    published["source_lang"] = "fr"
    (folder / "tokenizer_config.json").write_text(json.dumps(published))
    model = load(folder, slots=4)
    return replace(model, card=replace(model.card, revision="c0ffee"))


@pytest.fixture(scope="module")
def both(bundled: Model, french: Model) -> Iterator[Live]:
    with serve(bundled, french) as running:
        yield running


def test_requests_choose_by_pair_by_name_and_by_what_is_detected(both: Live) -> None:
    def answer(**fields: Any) -> Any:
        got = both.post("/translate", {"q": "Hotel.", "source": "en", "target": "de", **fields})
        return got.json()

    def used(model: str) -> float:
        return both.metric("source_tokens_total", model=model)

    before = used("en-de"), used("french")
    answer()
    assert (used("en-de") > before[0], used("french")) == (True, before[1])
    before = used("en-de"), used("french")
    answer(source="fr")
    assert (used("en-de"), used("french") > before[1]) == (before[0], True)
    before = used("en-de"), used("french")
    found = answer(q=[GERMAN, FRENCH], source="auto", target="en")
    assert [each["language"] for each in found["detectedLanguage"]] == ["de", "fr"]
    assert len(found["translatedText"]) == 2
    assert "tired" in found["translatedText"][0]
    assert (used("en-de") > before[0], used("french") > before[1]) == (True, True)
    refused = answer(source="en", model="french")
    assert refused["error"] == (
        "German (de) is not available as a target language from English (en)"
    )
    assert refused["detail"] == refused["error"] + "; en can be translated to: nothing"
    assert answer(model="spanish")["code"] == "unknown_model"


def test_a_model_with_fewer_rows_than_the_setting_has_slots_serves_as_many(both: Live) -> None:
    body = {"q": [FRENCH] * 9, "source": "fr", "target": "en", "model": "french", "num_beams": 3}
    answer = both.post("/translate", body)
    assert (answer.status_code, len(answer.json()["translatedText"])) == (200, 9)
    refused = both.post("/translate", body | {"num_beams": 5})
    assert "5 hypotheses at once exceed this server's limit of 4" in refused.text


def test_one_text_streams_from_the_model_it_is_routed_to(both: Live) -> None:
    body = {"q": FRENCH, "source": "auto", "target": "en"}
    plain = both.post("/translate", body).json()["translatedText"]
    stream = both.post("/translate/stream", body).text
    assert "event: done" in stream
    assert plain.split()[0] in stream


def test_languages_models_and_settings_show_the_union(both: Live) -> None:
    languages = {one["code"]: one["targets"] for one in both.client.get("/languages").json()}
    assert languages == {"de": ["de", "en"], "en": ["de", "en"], "fr": ["de", "en", "fr"]}
    models = {one["id"]: one for one in both.client.get("/v1/models").json()["data"]}
    assert list(models) == ["en-de", "french"]
    assert models["french"]["directions"] == {"fr": ["de", "en"]}
    assert models["french"]["languages"] == ["de", "en", "fr"]
    assert models["french"]["precision"] in ("float32", "int8")
    assert models["french"]["revision"] == "c0ffee"
    ready = both.client.get("/readyz").json()
    assert ready["models"] == {"en-de": "ready", "french": "ready"}
    found = both.client.post("/detect", data={"q": FRENCH}).json()
    assert found[0]["language"] == "fr"


def test_a_model_without_languages_generates_but_does_not_translate(french: Model) -> None:
    raw = replace(french, card=replace(french.card, name="raw", targets={}))
    with serve(raw) as live:
        refused = live.post("/translate", {"q": "a", "source": "en", "target": "de"})
        assert refused.status_code == 400
        assert (
            refused.json()["error"] == "raw declares no languages, so that it serves /generate only"
        )
        assert "generate only" in live.post("/detect", {"q": "a"}).json()["error"]
        assert live.client.get("/languages").json() == []
        assert live.client.get("/frontend/settings").status_code == 200
        assert live.post("/generate", {"inputs": ">>de<< Hotel."}).status_code == 200


def test_ready_is_said_only_once_every_model_is(bundled: Model, french: Model) -> None:
    slow, gate = gated(french)
    gate.close()  # its warm-up waits
    with serve(bundled, slow, wait_for_ready=False) as live:
        live.wait_until(lambda: "french" in live.serving.translators)
        ready = live.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["models"]["french"] == "warming up or recovering"
        assert live.client.get("/languages").status_code == 503
        gate.open()
        live.wait_until(lambda: live.client.get("/readyz").status_code == 200)


def test_two_models_of_one_name_are_refused(bundled: Model) -> None:
    with pytest.raises(ValueError, match=r"two models are called en-de; .* --model OTHER="):
        load_all(bundled, replace(bundled))


def load_all(*models: Model, **settings: Any) -> Serving:
    """Load as the server does, without HTTP."""

    async def run() -> Serving:
        serving = Serving(Settings(**settings), Metrics(CollectorRegistry(), "x"))
        try:
            await load_into(serving, models or None)
        finally:
            for translator in serving.translators.values():
                await asyncio.to_thread(translator.engine.stop)
        return serving

    return asyncio.run(run())


def test_models_are_named_by_alias_or_folder_and_know_where_they_are_from() -> None:
    serving = load_all(model=[str(BUNDLED), f"again={BUNDLED}"], slots=1)
    assert list(serving.translators) == ["en-de", "again"]
    card = serving.translators["again"].card
    assert (card.source, card.revision) == (str(BUNDLED), None)
    assert serving.awaited == []


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (["fine=BUNDLED", "broken=FOLDER"], "^broken: .*config.json is missing$"),
        (["org/name"], "^org/name is not complete in .* `stele download org/name` fetches it$"),
        (["fine=BUNDLED", "/nowhere"], "^/nowhere is not a folder"),
    ],
)
def test_one_line_names_the_model_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: list[str], sentence: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    places = [m.replace("BUNDLED", str(BUNDLED)).replace("FOLDER", str(tmp_path)) for m in models]
    with pytest.raises(ValueError, match=sentence):
        load_all(model=places, offline=True, slots=1)


def test_the_log_names_each_model_at_work(both: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "server.access")
    both.post("/translate", {"q": [GERMAN, FRENCH], "source": "auto", "target": "en"})
    both.wait_until(lambda: '"model": "en-de,french", "texts": 2' in caplog.text)


def test_a_model_that_asks_for_more_beams_than_there_are_slots_is_refused_at_start(
    bundled: Model,
) -> None:
    greedy = replace(bundled, card=replace(bundled.card, defaults={"num_beams": 6}))
    serving = Serving(Settings(slots=4), Metrics(CollectorRegistry(), "0"))

    with pytest.raises(ValueError, match=r"en-de: .* asks for 6 beams, and there are 4: --slots 6"):
        asyncio.run(load_into(serving, [greedy]))

    assert not serving.translators


def test_deepls_api_routes_each_text_and_lists_all_languages(both: Live) -> None:
    body = {"text": [GERMAN, FRENCH], "target_lang": "EN-GB"}
    found = both.post("/v2/translate", body).json()["translations"]
    assert [each["detected_source_language"] for each in found] == ["DE", "FR"]
    listed = both.client.get("/v2/languages").json()
    assert [each["language"] for each in listed] == ["DE", "EN", "FR"]


def test_openais_api_takes_the_named_model(both: Live) -> None:
    before = both.metric("source_tokens_total", model="french")
    body = {"model": "french", "prompt": FRENCH, "source": "fr", "target": "de"}
    answer = both.post("/v1/completions", body).json()
    assert answer["model"] == "french"
    gained = both.metric("source_tokens_total", model="french") - before
    assert answer["usage"]["prompt_tokens"] == gained
    assert both.client.get("/v1/models/french").json()["revision"] == "c0ffee"
    wrong = both.post("/v1/completions", body | {"model": "en-de"})
    assert "fr is not supported" in wrong.json()["error"]["message"]
