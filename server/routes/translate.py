"""Translation: LibreTranslate's dialect with our optional fields, and our stream beside it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from server.bodies import validate
from server.decoding_fields import DecodingFields
from server.errors import InvalidRequest
from server.preparation import Wishes
from server.reading import Delta
from server.results import Result
from server.routes.shared import Shared, aligned, body_of, welcome
from server.routing import Translation, prepare
from server.serving import Serving
from server.streaming import EVENTS, EventStream, event, events, while_connected
from server.text.languages import Detection, english_name
from server.translator import read_through, verify_count


async def speak_libretranslate(request: Request) -> None:
    """Let failures of these routes look as LibreTranslate's clients expect."""
    request.state.dialect = "libretranslate"


router = APIRouter(tags=["translation"], dependencies=[Depends(speak_libretranslate)])
native = APIRouter(tags=["translation"])


class TranslateRequest(DecodingFields):
    """LibreTranslate's fields, and our own."""

    q: str | list[str] = Field(description="One text or several.")
    source: str = Field(description="A language code, or auto.")
    target: str
    format: Literal["text", "html"] = "text"
    alternatives: int = Field(
        0, ge=0, le=32, description="Other translations to return, at most; they differ early."
    )
    api_key: str | None = None
    secret: str | None = Field(None, description="Sent by LibreTranslate's own page; not used.")
    model: str | None = Field(
        None, description="Which loaded model; by default the first that knows the languages."
    )
    details: bool = Field(False, description="Adds finish reason, usage, timings and scores.")
    preview: bool = Field(
        False, description="In a stream: preview events tell what may follow what is certain."
    )

    @property
    def texts(self) -> list[str]:
        """The texts in order, also where only one was sent."""
        return [self.q] if isinstance(self.q, str) else self.q


class DetectRequest(BaseModel):
    """LibreTranslate's fields."""

    model_config = ConfigDict(extra="forbid")

    q: str
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that may be submitted."""

    fields: TranslateRequest
    translation: Translation


async def _prepare(request: Request, shared: Serving, *, streams: bool = False) -> Prepared:
    """Read, verify and tokenise; nothing is submitted yet."""
    sent = await welcome(request, shared)
    for name in ("q", "source", "target"):
        if sent.get(name) in (None, "", []):
            raise InvalidRequest(f"Invalid request: missing {name} parameter")
    if isinstance(sent["q"], list):
        verify_count(len(sent["q"]), shared.settings.max_texts)
    fields = validate(TranslateRequest, sent, large="q")
    _refuse_unsupported(fields, streams)
    translation = await prepare(
        shared,
        fields.texts,
        fields.source,
        fields.target,
        fields,
        Wishes(
            streams=streams,
            previews=fields.preview,
            scores=fields.details,
            alternatives=fields.alternatives,
        ),
        model=fields.model,
        timeout_s=shared.settings.request_timeout_s,
    )
    request.state.log = {"model": translation.models, "texts": len(fields.texts)}
    return Prepared(fields, translation)


def _refuse_unsupported(fields: TranslateRequest, streams: bool) -> None:
    if fields.format == "html":
        raise InvalidRequest("html format is not supported yet; send format text")
    if fields.preview and not streams:
        raise InvalidRequest("preview has no effect here; send it to /translate/stream")


@router.post(
    "/translate",
    summary="Translate one text or several",
    response_model=dict[str, Any],
    openapi_extra=body_of(TranslateRequest, "application/x-www-form-urlencoded"),
)
async def translate(request: Request, shared: Shared) -> JSONResponse:
    """Answer `translatedText`: a string for a string, a list for a list."""
    prepared = await _prepare(request, shared)

    async def work() -> list[Result]:
        async with prepared.translation as translation:
            return await translation.collect()

    results = await while_connected(request, work())
    return JSONResponse(_answer(prepared, results))


def _answer(prepared: Prepared, results: list[Result]) -> dict[str, Any]:
    fields = prepared.fields

    def one_or_all(values: list[Any]) -> Any:
        return values[0] if isinstance(fields.q, str) else values

    answer: dict[str, Any] = {"translatedText": one_or_all([result.text for result in results])}
    if fields.source == "auto":
        answer["detectedLanguage"] = one_or_all([detected_language(r.detected) for r in results])
    warnings = [
        warning if isinstance(fields.q, str) else f"text {index}: {warning}"
        for index, result in enumerate(results)
        for warning in result.warnings
    ]
    if warnings:
        answer["warnings"] = warnings
    if fields.details:
        answer["details"] = one_or_all([details(result) for result in results])
    extras = [_extras(prepared, result) for result in results]
    return answer | {name: one_or_all([each[name] for each in extras]) for name in extras[0]}


def _extras(prepared: Prepared, result: Result) -> dict[str, Any]:
    """Return what was asked for besides the best text."""
    fields, extras = prepared.fields, dict[str, Any]()
    if fields.alternatives:
        extras["alternatives"] = [variant.text for variant in result.alternatives]
    if fields.returns_several:
        extras["hypotheses"] = [
            {"text": variant.text, "score": round(variant.score, 6)}
            for variant in result.hypotheses
        ]
    if fields.wants_alignments:
        extras["alignments"] = [aligned(each) for each in result.alignments]
    return extras


def detected_language(detection: Detection | None) -> dict[str, Any]:
    """Describe a detection as LibreTranslate does: confidence from 0 to 100."""
    assert detection is not None
    return {"confidence": round(100 * detection.confidence, 1), "language": detection.language}


def details(result: Result) -> dict[str, Any]:
    """Describe how a text was generated."""
    return {**_summary(result), "scores": [round(score, 6) for score in result.scores]}


def _summary(result: Result) -> dict[str, Any]:
    timings = result.timings
    return {
        "finishReason": "stop" if result.finish == "stop_string" else result.finish,
        "usage": {
            "sourceTokens": result.usage.source_tokens,
            "targetTokens": result.usage.target_tokens,
        },
        "timings": {
            "queueSeconds": timings.queue_s,
            "firstTokenSeconds": timings.first_token_s,
            "totalSeconds": timings.total_s,
        },
    }


async def _submitted(request: Request, shared: Shared) -> AsyncIterator[Prepared]:
    """Submit before the first byte, while a status can still be sent; give up at the end."""
    prepared = await _prepare(request, shared, streams=True)
    if not isinstance(prepared.fields.q, str):
        raise InvalidRequest("Invalid request: q must be one text to be streamed")
    async with prepared.translation:
        yield prepared


@native.post(
    "/translate/stream",
    summary="Translate one text, streaming",
    response_class=EventStream,
    status_code=200,
    responses=EVENTS,
    openapi_extra=body_of(TranslateRequest),
)
async def stream(
    request: Request, prepared: Annotated[Prepared, Depends(_submitted)]
) -> EventStream:
    """Send `delta` events, then one `done` or one `error`; a stream without either has failed.

    A delta is never retracted: of a beam search it tells what all live hypotheses agree on.
    """

    def each(delta: Delta) -> bytes:
        data = {"text": delta.text, "segment": delta.segment}
        ready = event(data, "delta") if delta.text else b""
        if delta.preview is not None:
            ready += event(data | {"text": delta.preview}, "preview")
        return ready

    def last() -> bytes:
        (result,) = prepared.translation.results()
        data: dict[str, Any] = {"translatedText": result.text, **_summary(result)}
        if result.detected:
            data["detectedLanguage"] = detected_language(result.detected)
        if result.warnings:
            data["warnings"] = list(result.warnings)
        if prepared.fields.details:
            data["scores"] = [round(score, 6) for score in result.scores]
        data |= _extras(prepared, result)
        return event(data, "done")

    deltas = prepared.translation.deltas()
    return EventStream(events(request, deltas, each, last, lambda body: event(body, "error")))


@router.get("/languages", summary="The languages that can be translated")
async def languages(shared: Shared) -> list[dict[str, Any]]:
    """List each source language with its targets, as LibreTranslate does."""
    shared.verify_complete()  # a list without them would say that they are not served
    targets: dict[str, set[str]] = {}
    for translator in shared.translators.values():
        for source, codes in translator.card.targets.items():
            targets.setdefault(source, set()).update(codes)
    return [
        {"code": code, "name": english_name(code), "targets": sorted({code, *targets[code]})}
        for code in sorted(targets)
    ]


@router.post(
    "/detect",
    summary="Tell which language a text is in",
    openapi_extra=body_of(DetectRequest, "application/x-www-form-urlencoded"),
)
async def detect(request: Request, shared: Shared) -> list[dict[str, Any]]:
    """List the loaded languages by likelihood, confidence from 0 to 100."""
    sent = await welcome(request, shared)
    if sent.get("q") in (None, ""):
        raise InvalidRequest("Invalid request: missing q parameter")
    fields = validate(DetectRequest, sent)
    shared.candidates()[0].verify_size([fields.q])
    ranked = await read_through([fields.q], lambda: shared.detect(fields.q))
    likely = [d for d in ranked[:3] if d.confidence >= 0.01]
    return [detected_language(d) for d in likely or ranked[:1]]


@router.get("/frontend/settings", summary="What LibreTranslate's clients ask first")
async def frontend_settings(shared: Shared) -> dict[str, Any]:
    """Describe this server's limits and features."""
    return {
        "apiKeys": shared.keys.are_required,
        "charLimit": shared.settings.max_characters,
        "filesTranslation": False,
        "frontendTimeout": 500,
        "keyRequired": shared.keys.are_required,
        "language": {
            "source": {"code": "auto", "name": "Auto Detect"},
            "target": _default_target(shared),
        },
        "suggestions": False,
        "supportedFilesFormat": [],
    }


def _default_target(shared: Serving) -> dict[str, str]:
    codes = [code for t in shared.translators.values() for code in t.languages]
    code = next((code for code in codes if code != "en"), "en")
    return {"code": code, "name": english_name(code)}
