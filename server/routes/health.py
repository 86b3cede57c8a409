"""Whether the server lives, is ready and what it runs: for orchestrators, people and scrapers."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from model import Card
from server import __version__
from server.routes.shared import Shared


def answered(request: Request) -> None:
    """Count these as answered whatever they say: a probe's 503 refuses nobody."""
    request.state.outcome = "ok"


router = APIRouter(tags=["operation"], dependencies=[Depends(answered)])


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Whether the process should go on living")
async def livez(shared: Shared) -> JSONResponse:
    """Answer 503 only when nothing but a restart helps; load never makes it fail."""
    failed = shared.status == "failed"
    return JSONResponse({"status": "failed" if failed else "ok"}, 503 if failed else 200)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Whether new work is welcome")
async def readyz(shared: Shared) -> JSONResponse:
    """Answer 503 with the progress while models load, and while the server drains."""
    status = shared.status
    headers = {} if status == "ready" else {"Retry-After": "1"}
    body = {"status": status, "progress": shared.progress, "models": shared.states}
    return JSONResponse(body, 200 if status == "ready" else 503, headers)


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Readiness as LibreTranslate's and TGI's clients ask")
async def health(shared: Shared) -> JSONResponse:
    """Answer `{"status": "ok"}` when ready."""
    status = shared.status
    if status == "ready":
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": status, "error": status, "error_type": "healthcheck"}, 503)


@router.get("/version", summary="The version that runs")
async def version() -> dict[str, str]:
    """Answer the version."""
    return {"version": __version__}


@router.get("/v1/models", summary="The loaded models")
async def models(shared: Shared) -> dict[str, Any]:
    """List models in OpenAI's shape, with what each can do."""
    cards = [translator.card for translator in shared.translators.values()]
    return {"object": "list", "data": [_described(card) for card in cards]}


@router.get("/v1/models/{name:path}", summary="One of the loaded models")
async def model(name: str, request: Request, shared: Shared) -> dict[str, Any]:
    """Describe one model as the list does."""
    request.state.dialect, request.state.outcome = "openai", None  # no probe: a refusal is one
    (translator,) = shared.candidates(name)
    return _described(translator.card)


def _described(card: Card) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": 0,
        "owned_by": "stele",
        "architecture": card.architecture,
        "parameters": card.parameters,
        "precision": card.precision,
        "revision": card.revision,
        "languages": card.languages,
        "max_source_tokens": card.max_source,
        "max_new_tokens": card.max_target,
        "directions": card.targets,
    }


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(shared: Shared) -> Response:
    """Expose every metric in Prometheus' text format."""
    return Response(generate_latest(shared.metrics.registry), media_type=CONTENT_TYPE_LATEST)
