"""Failures as responses: one problem body (RFC 9457), or the one that a dialect's clients read."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server.errors import (
    DeadlineExceeded,
    GenerationFailed,
    InvalidKey,
    InvalidRequest,
    MissingKey,
    QueueFull,
    Refused,
    ServiceError,
    TooLarge,
    UnknownModel,
)

_TGI_TYPES: dict[type[ServiceError], str] = {
    InvalidRequest: "validation",
    TooLarge: "validation",
    Refused: "overloaded",
    GenerationFailed: "generation",
    DeadlineExceeded: "incomplete_generation",
}
_OPENAI_CODES: dict[type[ServiceError], str] = {
    MissingKey: "invalid_api_key",
    InvalidKey: "invalid_api_key",
    UnknownModel: "model_not_found",
}


def _of_libretranslate(body: dict[str, Any], error: ServiceError) -> dict[str, Any]:
    """Say its sentence in `error`, which clients search; `detail` may hold more."""
    if isinstance(error, QueueFull):
        return body | {"error": f"Slowdown: {body['detail']}"}
    return body | ({"error": error.sentence} if isinstance(error, InvalidRequest) else {})


def _of_tgi(body: dict[str, Any], error: ServiceError) -> dict[str, Any]:
    return body | {"error_type": _first(_TGI_TYPES, error, error.code)}


def _of_deepl(body: dict[str, Any], error: ServiceError) -> dict[str, Any]:
    """Say it in `message`, which all of DeepL's clients show; some show `detail` beside it."""
    return body | {"detail": error.title}


def _of_openai(body: dict[str, Any], error: ServiceError) -> dict[str, Any]:
    kind = "invalid_request_error" if body["status"] < 500 else "server_error"
    described = {
        "message": body["detail"],
        "type": "rate_limit_error" if body["status"] == 429 else kind,
        "param": None,
        "code": _first(_OPENAI_CODES, error, error.code),
        "request_id": body["request_id"],
    }
    return {"error": described}


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How clients of a dialect know failures.

    Attributes:
        statuses: by kind of error, the first that fits; else the error's own.
        body: makes the body out of the problem's members.
    """

    statuses: Mapping[type[ServiceError], int] = field(default_factory=dict)
    body: Callable[[dict[str, Any], ServiceError], dict[str, Any]] = lambda body, error: body
    media: str = "application/json"


_DIALECTS = {
    "native": _Dialect(media="application/problem+json"),
    "libretranslate": _Dialect({TooLarge: 400, MissingKey: 400}, _of_libretranslate),
    # 503 is what all of DeepL's clients, and those that others wrote, send again later.
    "deepl": _Dialect({MissingKey: 403, DeadlineExceeded: 503}, _of_deepl),
    "openai": _Dialect({InvalidKey: 401, TooLarge: 400}, _of_openai),
    "tgi": _Dialect({InvalidRequest: 422, GenerationFailed: 424}, _of_tgi),
}


def problem(error: ServiceError, request: Request) -> dict[str, Any]:
    """Describe `error`: problem+json's members with LibreTranslate's, or as its dialect does."""
    detail = str(error) or error.title
    dialect = _dialect(request)
    body = {
        "type": f"urn:stele:problem:{error.code}",
        "title": error.title,
        "status": _first(dialect.statuses, error, error.status),
        "detail": detail,
        "code": error.code,
        "request_id": request.state.request_id,
        "error": detail,
        "message": detail,
    }
    return dialect.body(body, error)


def _dialect(request: Request) -> _Dialect:
    return _DIALECTS[getattr(request.state, "dialect", "native")]


def _first(table: Mapping[type[ServiceError], Any], error: ServiceError, otherwise: Any) -> Any:
    return next((found for kind, found in table.items() if isinstance(error, kind)), otherwise)


def respond(request: Request, error: ServiceError) -> JSONResponse:
    """Answer with `error` as the request's dialect says."""
    dialect = _dialect(request)
    status = _first(dialect.statuses, error, error.status)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == MissingKey.status:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem(error, request), status, headers, dialect.media)


def install(app: FastAPI) -> None:
    """Let every failure of `app` end in a problem body."""

    async def service_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError)
        request.state.error = error
        return respond(request, error)

    async def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        return respond(request, InvalidRequest(f"Invalid request: {name}: {first['msg']}"))

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        detail = {404: f"there is nothing at {request.scope['path'][:200]}; see /docs"}
        body = {
            "type": "about:blank",
            "title": error.detail,
            "status": error.status_code,
            "detail": detail.get(error.status_code, error.detail),
            "error": error.detail,
            "message": error.detail,
            "request_id": request.state.request_id,
        }
        return JSONResponse(body, error.status_code, error.headers, "application/problem+json")

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
