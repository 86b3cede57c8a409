"""Dialects that are switched off are not there, and cost nothing."""

import subprocess
import sys

import pytest

from model import Model
from server.settings import Settings
from tests.server.live import serve

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
