"""What holds for every route, those that come later too: who needs a key, and who may leave."""

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from model import Model
from server.app import create_app
from server.settings import Settings
from tests.server.live import Live, gated, serve

OPEN = {  # what tells of nobody's text
    "/livez",
    "/readyz",
    "/health",
    "/version",
    "/metrics",
    "/languages",
    "/frontend/settings",
    "/spec",
    "/info",
    "/v1/models",
    "/v1/models/{name:path}",
}
BY_LINK = {"/download_file/{name}"}  # which nobody can guess
GUARDED = {
    "/translate",
    "/translate/stream",
    "/translate_file",
    "/detect",
    "/suggest",
    "/generate",
    "/generate_stream",
    "/",
    "/v1/completions",
    "/v1/chat/completions",
    "/v2/translate",
    "/v2/languages",
    "/v2/usage",
    "/v2/glossary-language-pairs",
    "/v2/glossaries",
    "/v2/glossaries/{rest:path}",
    "/v3/glossaries",
    "/v3/glossaries/{rest:path}",
    "/v2/document",
    "/v2/document/{rest:path}",
}
KEYLESS = (400, 401, 403)  # as the dialects have it
KEY = "correct-horse"
BOTH = {"api_key": KEY, "auth_key": KEY}


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Return each path with each of its methods, however deep its router is."""

    def walk(found: list[Any]) -> Iterator[tuple[str, str]]:
        for route in found:
            if isinstance(route, APIRoute):
                yield from ((route.path, method) for method in sorted(route.methods or ()))
            elif (router := getattr(route, "original_router", None)) is not None:
                yield from walk(router.routes)

    return walk(app.routes)


@pytest.fixture(scope="module")
def keyed(bundled: Model) -> Iterator[Live]:
    with serve(bundled, api_keys=KEY) as live:
        yield live


def test_every_route_is_open_or_guarded_and_a_new_one_has_to_say_which() -> None:
    assert {path for path, _ in routes(create_app(Settings(), []))} == OPEN | BY_LINK | GUARDED


def test_no_guarded_route_answers_without_a_key_or_with_a_wrong_one(keyed: Live) -> None:
    for path, method in routes(create_app(Settings(), [])):
        if path not in GUARDED:
            continue
        url = path.replace("{rest:path}", "any")
        sent: list[dict[str, Any]] = [
            {},
            {"headers": {"authorization": "Bearer wrong"}},
            {"headers": {"authorization": "DeepL-Auth-Key"}},
            {"headers": {"authorization": f"Basic {KEY}"}},
            {"headers": {"authorization": KEY}},
            {"params": {"api_key": "wrong", "auth_key": "wrong"}},
            {"headers": {"authorization": "Bearer wrong"}, "params": BOTH},
        ]
        for each in sent:
            answer = keyed.client.request(method, url, **each)
            assert answer.status_code in KEYLESS, (path, method, each)
            assert "key" in answer.text.lower() or method == "HEAD", (path, method, each)


def test_a_key_in_a_field_is_read_beside_a_proxys_own_password(keyed: Live) -> None:
    basic = {"authorization": "Basic dXNlcjpwYXNzd29yZA=="}
    body = {"q": "I am tired.", "source": "en", "target": "de", "api_key": KEY}
    assert keyed.post("/translate", body, headers=basic).status_code == 200
    body["api_key"] = "wrong"
    assert keyed.post("/translate", body, headers=basic).status_code == 403


def test_no_key_is_logged_wherever_it_was_sent(
    keyed: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = {"text": "I am tired.", "target_lang": "DE"}
    assert keyed.client.get("/v2/translate", params={**texts, "auth_key": KEY}).is_success
    assert keyed.client.post("/v2/translate", data={**texts, "auth_key": KEY}).is_success
    assert keyed.client.get("/v2/usage", headers={"authorization": f"Bearer {KEY}"}).is_success
    assert keyed.client.get("/v2/usage", params={"auth_key": KEY + "x"}).status_code == 403
    done = {"route": "/v2/usage", "outcome": "invalid"}
    keyed.wait_until(lambda: keyed.metric("requests_total", **done) >= 1)
    others = ("http", "uvicorn.access")  # the client's, and what the process switches off
    ours = [record for record in caplog.records if not record.name.startswith(others)]
    assert any(record.name == "server.access" for record in ours)
    assert not [record for record in ours if KEY in record.getMessage()]


LENGTHS = {"max_new_tokens": 120, "min_new_tokens": 120}
LEAVING = {
    "/v2/translate": {"text": ["I am tired."] * 3, "target_lang": "DE"},
    "/v1/completions": {"model": "en-de", "prompt": ["I am tired."] * 3, **LENGTHS},
    "/v1/completions, streamed": {
        "model": "en-de",
        "prompt": ["I am tired."] * 3,
        "stream": True,
        **LENGTHS,
    },
    "/": {"inputs": "I am tired.", "parameters": LENGTHS},
    "/, streamed": {"inputs": "I am tired.", "stream": True, "parameters": LENGTHS},
    "/, translated": {
        "inputs": "I am tired.",
        "parameters": {"src_lang": "en", "tgt_lang": "de", **LENGTHS},
    },
    "/generate": {"inputs": "I am tired.", "parameters": LENGTHS},
    "/translate_file": None,
}
FILE = (
    b'--X\r\nContent-Disposition: form-data; name="source"\r\n\r\nen\r\n'
    b'--X\r\nContent-Disposition: form-data; name="target"\r\n\r\nde\r\n'
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    b"I am tired. I am lost. I like it.\r\n--X--\r\n"
)


@pytest.mark.parametrize("way", LEAVING)
def test_a_client_that_leaves_leaves_nothing_in_the_engine(bundled: Model, way: str) -> None:
    model, gate = gated(bundled)
    path = way.partition(",")[0]
    body = LEAVING[way]
    content = FILE if body is None else json.dumps(body).encode()
    media = "multipart/form-data; boundary=X" if body is None else "application/json"
    with serve(model, slots=4) as live:
        gate.close()
        with _sent(live, path, media, content):
            live.wait_until(lambda: live.held > 0)
            if "streamed" in way:
                gate.allow(2)
        left = {"route": path, "outcome": "cancelled"}
        live.wait_until(lambda: live.metric("requests_total", **left) == 1)
        steps = gate.steps
        gate.allow(2)
        live.wait_until(lambda: live.held == 0)
        assert gate.steps <= steps + 2  # far from what its targets would have taken
        assert not live.serving.files._files


def _sent(live: Live, path: str, media: str, content: bytes) -> socket.socket:
    url = httpx.URL(live.url)
    connection = socket.create_connection((url.host, url.port or 80), timeout=20)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media}\r\n"
    connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def test_no_code_that_is_too_long_for_a_language_is_remembered(live: Live) -> None:
    (translator,) = live.serving.translators.values()
    kept = translator._closest.cache_info().currsize
    body = {"q": "I am tired.", "source": "en", "target": "x" * 100_000}
    for path in ("/translate", "/translate/stream"):
        answer = live.post(path, body)
        assert answer.status_code == 400
        assert len(answer.content) < 1000
    assert translator._closest.cache_info().currsize == kept
