"""Connections that send nothing, or half of something, on a live server."""

import socket
import threading

import httpx
import pytest

from model import Model
from tests.server.live import Live, gated, serve

GOOD = {"q": "I am tired.", "source": "en", "target": "de"}
HEAD = b"POST /translate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def connect(live: Live) -> socket.socket:
    url = httpx.URL(live.url)
    return socket.create_connection((url.host, url.port or 80), timeout=10)


@pytest.mark.parametrize("sent", [b"", b"GET /li", HEAD])
def test_a_connection_without_whole_headers_is_closed(bundled: Model, sent: bytes) -> None:
    with serve(bundled, header_timeout_s=0.2) as live, connect(live) as connection:
        connection.sendall(sent)
        assert connection.recv(1024) == b""


def test_half_headers_after_a_whole_request_are_closed_too(bundled: Model) -> None:
    with serve(bundled, header_timeout_s=0.2) as live, connect(live) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /li")
        received = b""
        while part := connection.recv(1024):
            received += part
        assert received.startswith(b"HTTP/1.1 200")
        assert received.count(b"HTTP/1.1") == 1


def test_a_body_that_does_not_arrive_is_given_up(bundled: Model) -> None:
    with serve(bundled, body_timeout_s=0.2) as live, connect(live) as connection:
        connection.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        assert connection.recv(1024).startswith(b"HTTP/1.1 408")


def test_an_answer_may_take_longer_than_headers_may(bundled: Model) -> None:
    model, gate = gated(bundled)
    with serve(model, header_timeout_s=0.05) as live:
        gate.close()
        opener = threading.Timer(0.5, gate.open)
        opener.start()
        assert live.post("/translate", GOOD).status_code == 200
        opener.join()


def test_oversized_headers_are_refused(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 100_000)
        assert connection.recv(1024).startswith(b"HTTP/1.1 400")
