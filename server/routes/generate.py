"""Raw text-to-text in the shapes of text-generation-inference."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from server.bodies import validate
from server.decoding_fields import DecodingFields
from server.preparation import Wishes
from server.reader import Token
from server.reading import Delta, Reading
from server.results import Result
from server.routes.shared import Shared, aligned, body_of, weights, welcome
from server.serving import Serving
from server.streaming import EVENTS, EventStream, event, events, while_connected


async def speak_tgi(request: Request) -> None:
    """Let failures of these routes look as text-generation-inference's clients expect."""
    request.state.dialect = "tgi"


router = APIRouter(tags=["generation"], dependencies=[Depends(speak_tgi)])

_FINISH = {"stop": "eos_token", "length": "length", "stop_string": "stop_sequence"}


class Parameters(DecodingFields):
    """Our decoding fields; what of the original's is not served only at its neutral value."""

    details: bool = False
    return_full_text: Literal[False] | None = None
    decoder_input_details: Literal[False] | None = None
    watermark: Literal[False] | None = None
    best_of: Literal[1] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    typical_p: Annotated[float, Field(ge=1, le=1)] | None = None
    top_n_tokens: Literal[0] | None = None
    truncate: None = None
    grammar: None = None
    adapter_id: None = None


class RawRequest(BaseModel):
    """One raw input; special tokens in it count as such."""

    model_config = ConfigDict(extra="forbid")

    inputs: str = Field(min_length=1)
    parameters: Parameters = Field(default_factory=Parameters)
    api_key: str | None = None
    model: str | None = Field(None, description="Which loaded model; the first by default.")


class GenerateRequest(RawRequest):
    """The path says whether the answer is a stream."""

    stream: Literal[False] | None = Field(None, description="Use /generate_stream to stream.")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that may be submitted."""

    parameters: Parameters
    reading: Reading


async def prepare_raw(fields: RawRequest, shared: Serving, *, streams: bool) -> Prepared:
    """Verify and tokenise; nothing is submitted yet."""
    reading = await shared.translator(fields.model).generate(
        [fields.inputs],
        fields.parameters,
        Wishes(streams=streams, scores=streams or fields.parameters.details),
        timeout_s=shared.settings.request_timeout_s,
    )
    return Prepared(fields.parameters, reading)


async def _prepare(request: Request, shared: Serving, *, streams: bool = False) -> Prepared:
    fields = validate(GenerateRequest, await welcome(request, shared))
    return await prepare_raw(fields, shared, streams=streams)


@router.post(
    "/generate",
    summary="Generate from raw input",
    response_model=dict[str, Any],
    openapi_extra=body_of(GenerateRequest),
)
async def generate(request: Request, shared: Shared) -> JSONResponse:
    """Answer `generated_text`, and `details` where asked for."""
    prepared = await _prepare(request, shared)

    async def work() -> dict[str, Any]:
        async with prepared.reading:
            return await collected(prepared)

    return JSONResponse(await while_connected(request, work()))


async def collected(prepared: Prepared) -> dict[str, Any]:
    """Wait for what was submitted; returns the answer."""
    tokens = [token async for delta in prepared.reading.deltas() for token in delta.tokens]
    (result,) = prepared.reading.results()
    answer: dict[str, Any] = {"generated_text": result.text}
    if result.warnings:
        answer["warnings"] = list(result.warnings)
    if prepared.parameters.details:
        listed = [_token(token) for token in tokens]
        if listed:
            listed[-1]["text"] += _held_back(result.text, "".join(t["text"] for t in listed))
        answer["details"] = {**_details(result, prepared), "prefill": [], "tokens": listed}
    answer |= _sequences(result, prepared)
    if result.alignments:
        answer["alignments"] = aligned(result.alignments[0])
    return answer


def _sequences(result: Result, prepared: Prepared) -> dict[str, Any]:
    """Return all hypotheses, where several were asked for."""
    if not prepared.parameters.returns_several:
        return {}
    listed = [
        {
            "generated_text": variant.text,
            "score": round(variant.score, 6),
            "finish_reason": _FINISH[variant.finish],
        }
        for variant in result.hypotheses
    ]
    return {"sequences": listed}


def _held_back(text: str, told: str) -> str:
    """Return what became certain with the end: half a character, a space that stays."""
    return text.removeprefix(told) if text.startswith(told) else ""


def _token(token: Token) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": token.id,
        "text": token.text,
        "logprob": round(token.score, 6),
        "special": token.is_special,
    }
    if token.alignment:
        described["alignment"] = weights(token.alignment)
    return described


def _details(result: Result, prepared: Prepared) -> dict[str, Any]:
    return {
        "finish_reason": _FINISH[result.finish],
        "generated_tokens": result.usage.target_tokens,
        "input_length": result.usage.source_tokens,
        "seed": prepared.parameters.seed,
    }


async def _submitted(request: Request, shared: Shared) -> AsyncIterator[Prepared]:
    """Submit before the first byte, while a status can still be sent; give up at the end."""
    prepared = await _prepare(request, shared, streams=True)
    async with prepared.reading:
        yield prepared


@router.post(
    "/generate_stream",
    summary="Generate from raw input, streaming",
    response_class=EventStream,
    status_code=200,
    responses=EVENTS,
    openapi_extra=body_of(GenerateRequest),
)
async def generate_stream(
    request: Request, prepared: Annotated[Prepared, Depends(_submitted)]
) -> EventStream:
    """Send one event a token; the last one carries `generated_text`, or one event an `error`."""
    return streamed(request, prepared)


def streamed(request: Request, prepared: Prepared) -> EventStream:
    """Return the events of what was submitted."""
    sent, told = 0, ""
    held: list[dict[str, Any]] = []  # the newest event: it becomes the last one at the end

    def each(delta: Delta) -> bytes:
        nonlocal sent, told
        ready = b""
        for token in delta.tokens:
            ready += b"".join(map(event, held))
            sent, told = sent + 1, told + token.text
            held[:] = [
                {"index": sent, "token": _token(token), "generated_text": None, "details": None}
            ]
        return ready

    def last() -> bytes:
        (result,) = prepared.reading.results()
        end = {"id": 0, "text": "", "logprob": 0.0, "special": True}
        final: dict[str, Any] = held[0] if held else {"index": 1, "token": end}
        final["token"]["text"] += _held_back(result.text, told)
        final |= {"generated_text": result.text, "details": _details(result, prepared)}
        final |= _sequences(result, prepared)
        return event(final)

    deltas = prepared.reading.deltas()
    return EventStream(events(request, deltas, each, last, event))
