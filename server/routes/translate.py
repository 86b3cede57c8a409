"""Translation: LibreTranslate's shapes with our optional fields, and our stream beside it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from server.bodies import validate
from server.errors import InvalidRequest
from server.preparation import Wishes
from server.reading import Delta
from server.results import Result
from server.routes.shared import Shared, aligned, body_of, verify_present, warnings_by_text, welcome
from server.routes.translate_fields import MAX_ALTERNATIVES, DetectRequest, TranslateRequest
from server.routing import Translation, prepare
from server.serving import Serving
from server.streaming import EVENTS, EventStream, event, events, while_connected
from server.text.languages import Detection, client_code, english_name
from server.text.terms import verify_term_count
from server.translator import read_through, verify_count


async def speak_libretranslate(request: Request) -> None:
    """Let failures of these routes look as LibreTranslate's clients expect."""
    request.state.dialect = "libretranslate"


router = APIRouter(tags=["translation"], dependencies=[Depends(speak_libretranslate)])
native = APIRouter(tags=["translation"])


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that may be submitted."""

    fields: TranslateRequest
    translation: Translation


async def _prepare(request: Request, shared: Serving, *, streams: bool = False) -> Prepared:
    """Read, verify and tokenise; nothing is submitted yet."""
    sent = await welcome(request, shared)
    verify_present(sent, "q", "source", "target")
    if isinstance(sent["q"], list):
        verify_count(len(sent["q"]), shared.settings.max_texts)
    terms = [sent.get("glossary"), sent.get("protected")]
    verify_term_count(sum(len(each) for each in terms if isinstance(each, dict | list)))
    fields = validate(TranslateRequest, sent, large=("q", "glossary", "protected"))
    _verify_alternatives(fields, shared)
    if fields.preview and not streams:
        raise InvalidRequest("preview has no effect here; send it to /translate/stream")
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
            alternatives=0 if fields.format == "html" else fields.alternatives,
        ),
        rules=fields.rules,
        model=fields.model,
        timeout_s=shared.settings.request_timeout_s,
    )
    request.state.log = {"model": translation.models, "texts": len(fields.texts)}
    return Prepared(fields, translation)


def _verify_alternatives(fields: TranslateRequest, shared: Serving) -> None:
    limit = min(MAX_ALTERNATIVES, shared.settings.max_beams - 1)
    if fields.alternatives > limit:
        raise InvalidRequest(f"Invalid request: alternatives parameter must be <= {limit}")


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
    if fields.source.lower() == "auto":
        answer["detectedLanguage"] = one_or_all([detected_language(r.detected) for r in results])
    is_one = isinstance(fields.q, str)
    if warnings := list(results[0].warnings) if is_one else warnings_by_text(results):
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
    code = client_code(detection.language)
    return {"confidence": round(100 * detection.confidence, 1), "language": code}


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


@router.get(
    "/languages",
    summary="The languages that can be translated",
    response_model=list[dict[str, Any]],
)
async def languages(shared: Shared) -> Response:
    """List each source language with its targets, as LibreTranslate does."""
    shared.verify_complete()  # a list without them would say that they are not served
    if shared.listing is None:  # hundreds of languages take a while to list
        directions = [t.card.targets for t in shared.translators.values()]
        shared.listing = await asyncio.to_thread(lambda: to_json(list_languages(directions)))
    return Response(shared.listing, media_type="application/json")


def list_languages(directions: Iterable[Mapping[str, Iterable[str]]]) -> list[dict[str, Any]]:
    """Describe the languages of all of `directions`, each {source: targets}."""
    targets: dict[str, set[str]] = {}
    for each in directions:
        for source, codes in each.items():
            targets.setdefault(source, {source}).update(codes)
    return [
        {
            "code": client_code(code),
            "name": english_name(code),
            "targets": sorted(map(client_code, targets[code])),
        }
        for code in sorted(targets)
    ]


@router.post(
    "/detect",
    summary="Tell which language a text is in",
    openapi_extra=body_of(DetectRequest, "application/x-www-form-urlencoded"),
)
async def detect(request: Request, shared: Shared) -> list[dict[str, Any]]:
    """List up to three of the loaded languages by likelihood, confidence from 0 to 100."""
    sent = await welcome(request, shared)
    verify_present(sent, "q")
    fields = validate(DetectRequest, sent)
    shared.candidates()[0].verify_size([fields.q])
    ranked = await read_through([fields.q], lambda: shared.detect(fields.q))
    likely = [d for d in ranked[:3] if d.confidence >= 0.01]
    # What tells nothing is English, as LibreTranslate has it, whether that is served or not.
    return [detected_language(d) for d in likely or [Detection("en", 0.0)]]
