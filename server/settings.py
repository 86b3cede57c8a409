"""Every knob of the server, read once at start."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "STELE_"
Dialect = Literal["libretranslate", "deepl", "openai", "tgi"]
_INJECTED = ("STELE_PORT", "STELE_SERVICE_")  # by Kubernetes, for a service called stele


class Settings(BaseSettings):
    """Read from STELE_* environment variables; units are in the names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    http_host: str = Field("127.0.0.1", description="Address to listen on.")
    http_port: int = Field(
        8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    model: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="A model to serve: a checkpoint folder, or organisation/name of a repository "
        "of the Hugging Face hub, fetched if it is not in the cache. Optionally "
        "ALIAS=...@REVISION. Repeat it for several (comma-separated in the variable); the first "
        "that knows a pair of languages translates it. The bundled one by default.",
    )
    offline: bool = Field(False, description="Never touch the network to get a model.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N.")
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto", description="Of weights and activations; auto chooses for the device."
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of the model; PyTorch's choice."
    )
    slots: int = Field(64, ge=1, le=1024, description="Hypotheses decoded together.")
    max_beams: int = Field(
        16, ge=1, le=64, description="Hypotheses that one sentence may have at once."
    )
    source_tokens_per_tick: int = Field(
        256,
        ge=1,
        description="Source tokens encoded at once, between two decode steps or beside them, while "
        "every slot is taken, more while fewer are; one source at least.",
    )
    latent_cache_bytes: int = Field(
        256 * 2**20, ge=0, description="Encoder outputs kept for reuse."
    )
    max_body_bytes: int = Field(2 * 2**20, ge=1, description="Of a request body.")
    header_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="Until a connection has sent a request's headers."
    )
    body_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Until a request's body has arrived."
    )
    max_texts: int = Field(1000, ge=1, description="Texts in one request.")
    max_characters: int = Field(20_000, ge=1, description="Characters in one text.")
    max_waiting_segments: int = Field(
        8192, ge=1, description="Segments waiting for a slot before new work is refused with 429."
    )
    request_timeout_s: float = Field(60.0, gt=0, le=3600, description="Accepted to answered.")
    deepl_timeout_s: float = Field(
        4.5,
        gt=0,
        le=3600,
        description="The same for DeepL's API, whose clients send a request again after 5 s.",
    )
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="From SIGTERM to closing the port; new work gets 503 meanwhile.",
    )
    api_keys: Annotated[frozenset[SecretStr], NoDecode] = Field(
        frozenset(), description="Comma-separated; empty: no key is needed."
    )
    dialects: Annotated[tuple[Dialect, ...], NoDecode] = Field(
        ("libretranslate", "deepl", "openai", "tgi"),
        description="Comma-separated APIs that are spoken besides our own: libretranslate, deepl, "
        "openai, tgi; none for none.",
    )
    spec_title: str = Field(
        "Stele (speaks LibreTranslate's API)",
        min_length=1,
        max_length=100,
        description="Title in /spec; some clients, GNOME's Dialect among them, insist on "
        "LibreTranslate, which is its authors' trademark.",
    )
    max_file_store_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="Translated files kept in memory until they are fetched, for half an hour at "
        "most, the newest ones; 0 refuses files.",
    )
    cors_origin: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated origins that browsers may call from; * for all."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Of the log on standard error."
    )

    @field_validator("dialects", mode="before")
    @classmethod
    def _none_is_a_choice(cls, value: Any) -> Any:
        return () if value in ("none", ["none"]) else value

    @field_validator("model", "api_keys", "cors_origin", "dialects", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the STELE_* variables that no setting reads, misspelt ones most likely."""
    known = {variable(field) for field in Settings.model_fields}
    names = (os.environ if environment is None else environment).keys()
    return sorted(
        name
        for name in names
        if name.startswith(PREFIX) and name not in known and not _is_injected(name)
    )


def _is_injected(name: str) -> bool:
    port, service = _INJECTED
    return name == port or name.startswith((port + "_", service))
