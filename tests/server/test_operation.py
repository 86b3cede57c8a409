"""Keys, health, documentation and cross-origin requests on a live server."""

import asyncio
import json
import logging
from dataclasses import replace
from typing import cast

import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from model import DecodingOptions, Model
from server.auth import Keys
from server.errors import InvalidKey, MissingKey
from server.messages import Request
from server.metrics import Metrics
from server.process import HttpServer
from server.serving import Serving
from server.settings import Settings
from server.translator import Translator
from tests.server.live import Live, gated, serve

GOOD = {"q": "I am tired.", "source": "en", "target": "de"}
PUBLIC = {
    "/livez",
    "/readyz",
    "/health",
    "/version",
    "/metrics",
    "/v1/models",
    "/v1/models/{name}",
    "/info",
    "/languages",
    "/frontend/settings",
    "/spec",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/openapi.json",
}


def test_every_route_that_is_not_public_needs_a_key(bundled: Model) -> None:
    with serve(bundled, api_keys="alpha,beta", dialects="libretranslate,tgi") as live:
        paths = live.client.get("/openapi.json").json()["paths"]
        by_link = {"/download_file/{name}"}  # which nobody can guess
        guarded = [path for path in paths if path not in PUBLIC | by_link]
        assert set(guarded) == {
            "/translate",
            "/translate/stream",
            "/translate_file",
            "/detect",
            "/suggest",
            "/generate",
            "/generate_stream",
            "/",
        }
        for path in guarded:
            body = {"inputs": "a"} if path in ("/", "/generate", "/generate_stream") else GOOD
            for header in ({}, {"authorization": "Basic alpha"}):
                assert live.post(path, body, headers=header).status_code in (400, 401), path
            for wrong in (b"ALPHA", b"alp", b"alphabeta", b"\xff"):
                answer = live.post(path, body, headers={"authorization": b"Bearer " + wrong})
                assert answer.status_code == 403, path
                assert answer.json()["code"] == "invalid_api_key"
            for path_public in PUBLIC:
                assert live.client.get(path_public.format(name="en-de")).status_code == 200


def test_a_key_is_accepted_in_each_dialects_place(bundled: Model) -> None:
    with serve(bundled, api_keys="alpha,beta") as live:
        for header in ("Bearer alpha", "bearer beta", "DeepL-Auth-Key alpha"):
            answer = live.post("/translate", GOOD, headers={"authorization": header})
            assert answer.status_code == 200
        assert live.post("/translate", {**GOOD, "api_key": "beta"}).status_code == 200
        assert live.client.post("/translate", data={**GOOD, "api_key": "beta"}).status_code == 200
        raw = {"inputs": "a", "api_key": "alpha"}
        assert live.post("/generate", raw).status_code == 200
        assert live.post("/translate", {**GOOD, "api_key": "gamma"}).status_code == 403
        assert live.post("/translate", GOOD).status_code == 400  # as LibreTranslate answers
        native = live.post("/translate/stream", GOOD)
        assert (native.status_code, native.headers["www-authenticate"]) == (401, "Bearer")
        assert live.client.get("/frontend/settings").json()["keyRequired"] is True


def test_without_configured_keys_any_key_is_accepted(live: Live) -> None:
    header = {"authorization": "Bearer whatever"}
    assert live.post("/translate", GOOD, headers=header).status_code == 200


def test_keys_are_compared_whole_and_never_shown() -> None:
    keys = Keys(["hunter2"])
    keys.verify("Bearer hunter2", None)
    keys.verify(None, "hunter2")
    with pytest.raises(MissingKey):
        keys.verify(None, None)
    for wrong in ("hunter", "hunter22", "HUNTER2", "ünter"):
        with pytest.raises(InvalidKey):
            keys.verify(None, wrong)
    assert repr(keys) == "<Keys 1>"


def test_health_versions_and_models(live: Live) -> None:
    assert live.client.get("/livez").json() == {"status": "ok"}
    assert live.client.get("/readyz").json()["status"] == "ready"
    assert live.client.get("/health").json() == {"status": "ok"}
    for path in ("/livez", "/readyz", "/health"):
        assert live.client.head(path).status_code == 200
    assert live.client.get("/version").json()["version"]
    (model,) = live.client.get("/v1/models").json()["data"]
    assert model["id"] == "en-de"
    assert model["directions"] == {"de": ["en"], "en": ["de"]}
    assert live.client.get("/docs").status_code == 200
    assert live.client.get("/nowhere").json()["title"] == "Not Found"
    assert live.client.put("/translate").status_code == 405


def test_while_the_model_loads_the_port_is_open_and_work_is_refused(bundled: Model) -> None:
    model, gate = gated(bundled)
    gate.close()  # the warm-up step waits
    with serve(model, wait_for_ready=False) as live:
        assert live.client.get("/livez").status_code == 200
        ready = live.client.get("/readyz")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert ready.json()["status"] == "loading"
        assert live.client.get("/health").json()["error_type"] == "healthcheck"
        refused = live.post("/translate", GOOD)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        live.wait_until(lambda: live.metric("rejected_total", reason="not_ready") == 1)
        gate.open()
        live.wait_until(lambda: live.client.get("/readyz").status_code == 200)
        assert live.post("/translate", GOOD).status_code == 200


def test_a_full_queue_refuses_with_429_and_an_idle_server_never_does(bundled: Model) -> None:
    model, gate = gated(bundled)
    with serve(model, slots=2, max_waiting_segments=3) as live:
        many = {**GOOD, "q": ["I am tired."] * 20}
        assert live.post("/translate", many).status_code == 200
        gate.close()
        ids = live.serving.translator().engine.submit(
            [_request(bundled) for _ in range(5)], timeout_s=60
        )
        refused = live.post("/translate", GOOD)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["code"] == "queue_full"
        live.wait_until(lambda: live.metric("rejected_total", reason="queue_full") == 1)
        live.serving.translator().engine.cancel(ids)
        gate.open()
        live.wait_until(lambda: live.held == 0)
        assert live.post("/translate", GOOD).status_code == 200


def _request(model: Model) -> Request:
    prompt = model.tokenizer.prompt("I am tired.", "en", "de")
    return Request(prompt.source, DecodingOptions(max_new_tokens=9))


def test_a_dead_engine_fails_liveness_so_that_the_process_is_replaced(bundled: Model) -> None:
    model, _ = gated(replace(bundled))
    with serve(model) as live:
        live.serving.translator().engine.stop()
        assert live.client.get("/livez").status_code == 503
        assert live.client.get("/readyz").json()["status"] == "failed"


def test_the_request_id_is_echoed_or_made_and_never_injected(live: Live) -> None:
    kept = live.post("/translate", GOOD, headers={"x-request-id": "abc-1.2:3"})
    assert kept.headers["x-request-id"] == "abc-1.2:3"
    for bad in ("a b", "x" * 200, "<script>", ""):
        made = live.post("/translate", GOOD, headers={"x-request-id": bad})
        assert len(made.headers["x-request-id"]) == 32


def test_one_log_line_per_request_holds_no_text_and_no_key(
    bundled: Model, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serve(bundled, api_keys="sesame") as live:
        canary = {**GOOD, "q": "canary bird"}
        header = {"authorization": "Bearer sesame"}
        live.post("/translate", canary, headers={**header, "x-request-id": "one"})
        live.post("/translate", {**canary, "x": "y"}, headers={**header, "x-request-id": "two"})
        refused = {**canary, "api_key": "mellon"}
        live.post("/translate", refused, headers={"x-request-id": "three"})
        metrics = live.client.get("/metrics").text
    # Of these requests only: what another test asked for last may be logged after it ended.
    logged = [r.getMessage() for r in caplog.records if r.name == "server.access"]
    lines = [line for line in logged if json.loads(line)["request_id"] in ("one", "two", "three")]
    assert [json.loads(line)["request_id"] for line in lines] == ["one", "two", "three"]
    assert '"route": "/translate", "status": 200, "outcome": "ok"' in lines[0]
    assert '"model": "en-de", "texts": 1' in lines[0]
    for secret in ("canary", "sesame", "mellon"):
        assert secret not in caplog.text
        assert secret not in metrics


def test_browsers_may_call_only_from_configured_origins(live: Live, bundled: Model) -> None:
    origin = {"origin": "https://a.example"}
    assert "access-control-allow-origin" not in live.client.get("/version", headers=origin).headers
    with serve(bundled, cors_origin="https://a.example") as open_live:
        allowed = open_live.client.get("/version", headers=origin).headers
        assert allowed["access-control-allow-origin"] == "https://a.example"
        preflight = {**origin, "access-control-request-method": "POST"}
        preflight["access-control-request-headers"] = "content-type"
        assert open_live.client.options("/translate", headers=preflight).status_code == 200


def test_series_do_not_grow_with_what_clients_send(live: Live) -> None:
    def series() -> int:
        names = live.client.get("/metrics").text.splitlines()
        return len([name for name in names if name.startswith("stele_requests_total")])

    live.client.get("/unknown/path")
    series()
    before = series()
    for number in range(20):
        live.client.get(f"/unknown/{number}", headers={"user-agent": str(number)})
    assert series() == before


def test_a_fault_of_ours_is_a_500_problem_without_its_reason(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, *_: object) -> None:
        raise RuntimeError("secret reason")

    with monkeypatch.context() as patch:
        patch.setattr("server.translator.Translator.verify_size", broken)
        answer = live.post("/translate", GOOD)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert live.post("/translate", GOOD).status_code == 200


def test_what_is_loaded_is_kept_from_garbage_collection_only_by_who_owns_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("gc.collect", lambda: calls.append("collect"))
    monkeypatch.setattr("gc.freeze", lambda: calls.append("freeze"))
    serving = Serving(Settings(), Metrics(CollectorRegistry(), "x"))
    config = uvicorn.Config(lambda: None, log_config=None)
    owner, guest = HttpServer(config, serving, owns_process=True), HttpServer(config, serving)

    def tick() -> None:
        for server in (owner, guest):
            asyncio.run(server.on_tick(1))

    serving.awaited = ["en-de"]
    serving.translators = {"first": cast(Translator, object())}
    tick()
    assert calls == []
    serving.awaited = []
    tick()
    tick()
    assert calls == ["collect", "freeze"]
