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
