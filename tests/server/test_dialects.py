"""Dialects that are switched off are not there, and cost nothing."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from model import Model
from server.settings import Settings
from tests.server.live import Live, serve

PATHS = {
    "deepl": ("/v2/translate", "/v2/document"),
    "openai": ("/v1/completions", "/v1/chat/completions"),
    "tgi": ("/", "/generate", "/generate_stream"),
}
MODULES = ("deepl", "deepl_fields", "openai", "openai_fields", "generate", "tgi")


def test_a_dialect_that_is_switched_off_is_not_there(bundled: Model) -> None:
    with serve(bundled, dialects="none") as live:
        for path in (path for paths in PATHS.values() for path in paths):
            answer = live.post(path, {})
            assert answer.status_code == 404, path
            assert isinstance(answer.json()["message"], str)
        assert live.client.get("/v1/models").status_code == 200
        body = {"q": "I am tired.", "source": "en", "target": "de"}
        assert live.post("/translate/stream", body).status_code == 200


@pytest.mark.parametrize(
    ("dialects", "imported"),
    [
        ("none", set()),
        ("deepl", {"deepl", "deepl_fields"}),
        ("openai", {"openai", "openai_fields"}),
        ("tgi", {"generate", "tgi"}),
    ],
)
def test_what_nobody_speaks_is_not_imported(dialects: str, imported: set[str]) -> None:
    script = (
        "import sys; from server.app import create_app; from server.settings import Settings; "
        f"create_app(Settings(dialects={dialects!r}), []); "
        f"print([n for n in {MODULES!r} if 'server.routes.' + n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == f"{[name for name in MODULES if name in imported]}\n", done.stderr


def test_all_dialects_are_spoken_by_default() -> None:
    assert Settings().dialects == ("libretranslate", *PATHS)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/translate", 403),
        ("/v2/languages", 403),
        ("/v2/document", 403),
        ("/v1/completions", 401),
        ("/v1/chat/completions", 401),
        ("/", 403),
    ],
)
def test_a_key_in_a_header_is_verified_before_the_body_is_read(
    keyed: Live, path: str, status: int
) -> None:
    """The body never comes: it is declared only."""
    url = httpx.URL(keyed.url)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer b\r\ncontent-length: 9\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).split()[1] == str(status).encode()


@pytest.fixture(scope="module")
def keyed(bundled: Model) -> Iterator[Live]:
    with serve(bundled, api_keys="alpha") as live:
        yield live


@pytest.mark.parametrize("path", ["/v2/translate", "/v1/completions", "/", "/v2/usage"])
def test_a_body_that_is_not_json_is_refused_in_the_dialect(live: Live, path: str) -> None:
    answer = live.client.post(path, content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert "Invalid JSON format" in answer.text
    assert answer.headers["content-type"] == "application/json"
