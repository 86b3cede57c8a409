"""Failures as responses: one problem body (RFC 9457) that every dialect's clients can read."""

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server.errors import (
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    MissingKey,
    QueueFull,
    Refused,
    ServiceError,
    TooLarge,
)

_TGI_TYPES = {
    InvalidRequest: "validation",
    TooLarge: "validation",
    Refused: "overloaded",
    GenerationFailed: "generation",
    DeadlineExceeded: "incomplete_generation",
}


def problem(error: ServiceError, request: Request, status: int | None = None) -> dict[str, Any]:
    """Describe `error`: problem+json's members, with LibreTranslate's, DeepL's and TGI's beside."""
    detail = str(error) or error.title
    body = {
        "type": f"urn:stele:problem:{error.code}",
        "title": error.title,
        "status": status or error.status,
        "detail": detail,
        "code": error.code,
        "request_id": request.state.request_id,
        "error": detail,
        "message": detail,
    }
    if _dialect(request) == "libretranslate":
        body["error"] = _as_libretranslate(error, detail)
    if _dialect(request) == "tgi":
        kinds = (name for kind, name in _TGI_TYPES.items() if isinstance(error, kind))
        body["error_type"] = next(kinds, error.code)
    return body


def _as_libretranslate(error: ServiceError, detail: str) -> str:
    """Return its sentence for this, which clients search; `detail` may hold more."""
    if isinstance(error, QueueFull):
        return f"Slowdown: {detail}"
    return error.sentence if isinstance(error, InvalidRequest) else detail


def _dialect(request: Request) -> str:
    return getattr(request.state, "dialect", "native")


def _status(error: ServiceError, request: Request) -> int:
    dialect = _dialect(request)
    if dialect == "libretranslate" and isinstance(error, TooLarge | MissingKey):
        return 400  # as LibreTranslate answers them
    if dialect == "tgi" and isinstance(error, InvalidRequest):
        return 422
    return error.status


def respond(request: Request, error: ServiceError) -> JSONResponse:
    """Answer with `error` as the request's dialect says."""
    status = _status(error, request)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == MissingKey.status:
        headers["WWW-Authenticate"] = "Bearer"
    media = "application/problem+json" if _dialect(request) == "native" else "application/json"
    return JSONResponse(problem(error, request, status), status, headers, media)


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
