"""Server-sent events, clients that leave, and metrics that add up, on a live server."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from model import Model
from tests.server.live import Live, gated, serve

LONG = {"q": "I am tired.", "source": "en", "target": "de"} | {
    "max_new_tokens": 120,
    "min_new_tokens": 120,
}


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = "message"
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
            name = "message"


def stream(live: Live, body: dict[str, Any], path: str = "/translate/stream") -> list[Any]:
    with live.client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(events(answer.iter_lines()))


def send_and_leave(live: Live, path: str, body: dict[str, Any]) -> socket.socket:
    url = httpx.URL(live.url)
    connection = socket.create_connection((url.host, url.port or 80))
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return connection


@pytest.mark.parametrize(
    "text",
    [
        "I am tired.",
        "How do I get to the station? I am lost.\n\n  Thank you! 🙂 \n",
        "\u2028 I like data: x\r\nevent: done 12",
        "  ",
        'I think "Ärger" is 👩‍👩‍👧 funny – isn\'t it?',
    ],
)
def test_the_deltas_concatenate_to_the_plain_answer(live: Live, text: str) -> None:
    body = {"q": text, "source": "en", "target": "de"}
    received = stream(live, body)

    plain = live.post("/translate", body).json()["translatedText"]
    names = [name for name, _ in received]
    assert names == ["delta"] * (len(names) - 1) + ["done"]
    assert "".join(data["text"] for _, data in received[:-1]) == plain
    segments = [data["segment"] for _, data in received[:-1]]
    assert segments == sorted(segments)
    done = received[-1][1]
    assert done["translatedText"] == plain
    assert done["finishReason"] == "stop"
    assert set(done) == {"translatedText", "finishReason", "usage", "timings"}


def test_sampled_streams_concatenate_to_the_plain_answer_too(live: Live) -> None:
    for seed in range(12):
        body = {"q": "I like it.", "source": "en", "target": "de", "temperature": 3, "seed": seed}
        received = stream(live, {**body, "max_new_tokens": 40, "stop": ["ch", "."]})
        plain = live.post("/translate", {**body, "max_new_tokens": 40, "stop": ["ch", "."]}).json()
        assert "".join(data["text"] for _, data in received[:-1]) == plain["translatedText"]


def test_a_delta_is_sent_before_the_text_is_complete(bundled: Model) -> None:
    model, gate = gated(bundled)
    with serve(model) as live:
        gate.close()
        with live.client.stream("POST", "/translate/stream", json=LONG) as answer:
            lines = answer.iter_lines()
            gate.allow(5)
            first = next(events(lines))
            assert first[0] == "delta"
            assert live.held == 1
            gate.open()
            assert [name for name, _ in events(lines)][-1] == "done"


def test_a_stream_takes_one_text_and_refuses_with_a_status(live: Live) -> None:
    body = {"q": ["a"], "source": "en", "target": "de"}
    answer = live.post("/translate/stream", body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "one text" in answer.json()["detail"]


def test_a_failure_inside_a_stream_is_its_last_event(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object) -> None:
        raise RuntimeError("detokenizing failed")

    failed = live.metric("requests_total", route="/translate/stream", outcome="failed")
    with monkeypatch.context() as patch:
        patch.setattr("server.reading.Reader.take", broken)
        received = stream(live, {"q": "I am tired.", "source": "en", "target": "de"})
    assert [name for name, _ in received] == ["error"]
    assert received[0][1]["status"] == 500
    assert "detokenizing" not in json.dumps(received)
    live.wait_until(lambda: live.held == 0)
    counted = {"route": "/translate/stream", "outcome": "failed"}  # once the answer has left
    live.wait_until(lambda: live.metric("requests_total", **counted) == failed + 1)


@pytest.mark.parametrize("path", ["/translate", "/translate/stream"])
def test_a_request_beyond_its_time_ends_as_expired(bundled: Model, path: str) -> None:
    model, gate = gated(bundled)
    with serve(model, request_timeout_s=0.2) as live:
        gate.close()
        connection = send_and_leave(live, path, LONG)
        live.wait_until(lambda: live.held == 1)
        started = time.monotonic()
        live.wait_until(lambda: time.monotonic() > started + 0.3)
        gate.open()
        live.wait_until(lambda: live.metric("requests_total", route=path, outcome="expired") == 1)
        live.wait_until(lambda: live.metric("rejected_total", reason="deadline") == 1)
        answer = connection.recv(65536)
        connection.close()
        assert b"504" in answer.split(b"\r\n")[0] or b"event: error" in answer


@pytest.mark.parametrize("path", ["/translate", "/translate/stream", "/generate_stream"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_client_that_leaves_frees_its_slots_at_the_next_step(
    bundled: Model, path: str, waits: bool
) -> None:
    model, gate = gated(bundled)
    parameters = {key: LONG[key] for key in ("max_new_tokens", "min_new_tokens")}
    body = {"inputs": "Hi", "parameters": parameters} if path == "/generate_stream" else LONG
    with serve(model, slots=1) as live:
        gate.close()
        blocker = send_and_leave(live, "/translate", LONG) if waits else None
        live.wait_until(lambda: live.held == int(waits))
        leaving = send_and_leave(live, path, body)
        live.wait_until(lambda: live.held == 1 + int(waits))
        leaving.close()
        live.wait_until(lambda: live.metric("requests_total", route=path, outcome="cancelled") == 1)
        gate.allow(1)
        live.wait_until(lambda: live.held == int(waits))
        steps = gate.steps
        if blocker:
            blocker.close()
            live.wait_until(
                lambda: (
                    live.metric("requests_total", route="/translate", outcome="cancelled")
                    == 1 + (path == "/translate")
                )
            )
            gate.allow(1)
            live.wait_until(lambda: live.held == 0)
        assert gate.steps <= steps + 2
        gate.open()
        fresh = {"q": "I am tired.", "source": "en", "target": "de"}
        assert "müde" in live.post("/translate", fresh).json()["translatedText"]


def test_a_reader_that_does_not_read_keeps_no_slot(bundled: Model) -> None:
    with serve(bundled, slots=1) as live:
        slow = send_and_leave(live, "/translate/stream", LONG)
        live.wait_until(lambda: live.metric("target_tokens_total", model="en-de") == 120)
        live.wait_until(lambda: live.held == 0)
        slow.close()


def test_pings_keep_a_waiting_stream_open(bundled: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.streaming.EventStream.ping_s", 0.05)
    model, gate = gated(bundled)
    with serve(model) as live:
        gate.close()
        with live.client.stream("POST", "/translate/stream", json=LONG) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith(": ping")
            gate.open()
            assert [name for name, _ in events(lines)][-1] == "done"


def test_generate_and_its_stream_answer_as_tgi(live: Live) -> None:
    body = {"inputs": ">>de<< I am tired.", "parameters": {"details": True}}
    plain = live.post("/generate", body).json()
    assert "müde" in plain["generated_text"]
    details = plain["details"]
    assert details["finish_reason"] == "eos_token"
    assert details["generated_tokens"] == len(details["tokens"])
    assert set(details["tokens"][0]) == {"id", "text", "logprob", "special"}

    received = [data for _, data in stream(live, body, "/generate_stream")]
    assert [each["index"] for each in received] == list(range(1, len(received) + 1))
    assert [each["token"] for each in received] == details["tokens"]
    assert [each["generated_text"] for each in received[:-1]] == [None] * (len(received) - 1)
    assert received[-1]["generated_text"] == plain["generated_text"]
    assert received[-1]["details"]["finish_reason"] == "eos_token"


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({}, 422, "missing inputs"),
        ({"inputs": ""}, 422, "inputs"),
        ({"inputs": "a", "parameters": {"best_of": 2}}, 422, "best_of"),
        ({"inputs": "a", "parameters": {"num_beams": 0}}, 422, "num_beams must be"),
        ({"inputs": "a", "parameters": {"num_beams": 2, "temperature": 1}}, 422, "one of them"),
        ({"inputs": "a", "parameters": {"top_k": 2}}, 422, "top_k has no effect"),
        ({"inputs": "a", "parameters": {"frequency_penalty": 0.5}}, 422, "frequency_penalty"),
        ({"inputs": "a", "nonsense": 1}, 422, "'nonsense' is not a field"),
        ({"inputs": "antidisestablishmentarianism " * 200}, 413, "limit of 512"),
        ({"inputs": "a" * 20_001}, 413, "exceeds text limit (20000)"),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_generate_refuses_as_tgi_does(
    live: Live, path: str, body: dict[str, Any], status: int, sentence: str
) -> None:
    answer = live.post(path, body)
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["error"]
    assert answer.json()["error_type"] == "validation"


def test_the_requests_counted_are_the_requests_made(bundled: Model) -> None:
    good = {"q": "I am tired.", "source": "en", "target": "de"}
    with serve(bundled) as live:
        for _ in range(3):
            live.post("/translate", good)
        live.post("/translate", {})
        stream(live, good)
        live.client.get("/nowhere")
        live.client.put("/translate")
        live.client.get("/livez")
        live.client.head("/readyz")
        text = live.client.get("/metrics").text
        live.wait_until(lambda: live.metric("requests_total", route="/metrics", outcome="ok") == 1)
        total = sum(
            sample.value
            for family in live.serving.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "stele_requests_total"
        )
        assert total == 10
        assert live.metric("requests_total", route="/translate", outcome="ok") == 3
        assert live.metric("requests_total", route="/translate", outcome="invalid") == 2
        assert live.metric("requests_total", route="other", outcome="invalid") == 1
        assert 'stele_latent_cache_hits_total{model="en-de"}' in text
