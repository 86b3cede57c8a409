import os
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from server.settings import Settings, unknown_variables


def test_settings_come_from_the_environment_and_hide_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STELE_MODEL", "/models/en-de")
    monkeypatch.setenv("STELE_SLOTS", "4")
    monkeypatch.setenv("STELE_API_KEYS", "hunter2, hunter3")
    monkeypatch.setenv("STELE_CORS_ORIGIN", "https://a.example,https://b.example")

    settings = Settings()

    assert (settings.model, settings.slots) == (("/models/en-de",), 4)
    assert settings.cors_origin == ("https://a.example", "https://b.example")
    assert len(settings.api_keys) == 2
    assert "hunter2" not in repr(settings)


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STELE_SLOTS", "4")
    assert Settings(slots=5).slots == 5


def test_a_misspelt_variable_is_found_and_those_of_kubernetes_are_not() -> None:
    environment = {
        "STELE_SLOT": "7",
        "STELE_SLOTS": "7",
        "STELE_PORT": "tcp://10.0.0.1:8000",
        "STELE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "STELE_SERVICE_HOST": "10.0.0.1",
        "PATH": "/bin",
    }
    assert unknown_variables(environment) == ["STELE_SLOT"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slots", 0),
        ("http_port", 70_000),
        ("device", "tpu"),
        ("precision", "int3"),
        ("request_timeout_s", 0),
        ("max_body_bytes", 0),
        ("nonsense", 1),
    ],
)
def test_a_value_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings(**{field: value})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().slots = 3  # type: ignore[misc]


@pytest.mark.parametrize(("own", "expected"), [(None, "60000"), ("7", "7")])
def test_serve_bounds_openmps_spinning_before_pytorch_reads_it(
    own: str | None, expected: str
) -> None:
    """Checked where the application would be made: nothing may have imported PyTorch by then."""
    script = """
import os, sys, types
app, process = types.ModuleType("server.app"), types.ModuleType("server.process")
app.create_app = lambda settings: print("torch" in sys.modules, os.environ["GOMP_SPINCOUNT"])
process.run = lambda app, settings: 0
sys.modules |= {"server.app": app, "server.process": process}
from server.cli import app as commands
commands(["serve"])
"""
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    environment |= {} if own is None else {"GOMP_SPINCOUNT": own}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"False {expected}\n", done.stderr
