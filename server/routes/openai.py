"""OpenAI's dialect: completions, as JSON or as a stream; chat is refused."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from server.bodies import validate
from server.errors import NotFound
from server.preparation import Wishes
from server.reading import Delta, Reading
from server.results import Result
from server.routes.openai_fields import CompletionRequest
from server.routes.shared import Shared, body_of, warnings_by_text, welcome
from server.routing import Translation, prepare
from server.serving import Serving
from server.streaming import EventStream, event, events, while_connected
from server.translator import verify_count

_FINISH = {"stop": "stop", "length": "length", "stop_string": "stop"}
_DONE = b"data: [DONE]\n\n"


async def speak_openai(request: Request) -> None:
    """Let failures of these routes look as OpenAI's clients expect."""
    request.state.dialect = "openai"


router = APIRouter(tags=["OpenAI"], dependencies=[Depends(speak_openai)])


@dataclass(frozen=True, slots=True)
class Completion:
    """A request that was submitted, and what all parts of its answer have in common."""

    fields: CompletionRequest
    work: Translation | Reading
    frame: dict[str, Any]


@dataclass(slots=True)
class Logprobs:
    """The scores of chosen tokens, as the model has them, and where in each choice they are.

    A segment's tokens are counted from where it begins: what stands in for a placeholder may be
    longer or shorter than it.
    """

    _told: Counter[int] = field(default_factory=Counter)  # characters, by choice
    _places: dict[tuple[int, int], int] = field(default_factory=dict)  # of what comes next

    def of(self, delta: Delta) -> dict[str, Any]:
        """Describe the tokens of a delta; call it for every delta, in order."""
        segment = (delta.text_index, delta.segment)
        place = self._places.get(segment, self._told[delta.text_index])
        chosen, offsets = [token for token in delta.tokens if not token.is_special], []
        for token in chosen:
            offsets.append(place)
            place += len(token.text)
        self._places[segment] = place
        self._told[delta.text_index] += len(delta.text)
        return {
            "tokens": [token.text for token in chosen],
            "token_logprobs": [round(token.score, 6) for token in chosen],
            "text_offset": offsets,
            "top_logprobs": None,
        }


async def _submitted(request: Request, shared: Shared) -> AsyncIterator[Completion]:
    """Submit before the first byte, while a status can still be sent; give up at the end."""
    sent = await welcome(request, shared)
    if isinstance(sent.get("prompt"), list):
        verify_count(len(sent["prompt"]), shared.settings.max_texts)
    fields = validate(CompletionRequest, sent, large=("prompt",))
    fields.verify()
    work = await _prepare(fields, shared)
    request.state.log = {"model": fields.model, "texts": len(fields.texts)}
    frame = {
        "id": f"cmpl-{request.state.request_id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": fields.model,
    }
    async with work:
        yield Completion(fields, work, frame)


async def _prepare(fields: CompletionRequest, shared: Serving) -> Translation | Reading:
    decoding, timeout_s = fields.decoding(), shared.settings.request_timeout_s
    wishes = Wishes(streams=bool(fields.stream), scores=fields.logprobs is not None)
    if fields.target is not None:
        return await prepare(
            shared,
            fields.texts,
            fields.source or "auto",
            fields.target,
            decoding,
            wishes,
            model=fields.model,
            timeout_s=timeout_s,
        )
    translator = shared.translator(fields.model)
    return await translator.generate(fields.texts, decoding, wishes, timeout_s=timeout_s)


@router.post(
    "/v1/completions",
    summary="Complete prompts: generate from raw input, or translate",
    response_model=None,
    openapi_extra=body_of(CompletionRequest),
)
async def completions(
    request: Request, completion: Annotated[Completion, Depends(_submitted)]
) -> Response:
    """Answer choices, prompt by prompt; where `stream` is set as events, and `[DONE]`."""
    if completion.fields.stream:
        return _stream(request, completion)
    if completion.fields.logprobs is not None:
        logprobs, results = await while_connected(request, _followed(completion.work))
    else:
        logprobs, results = {}, await while_connected(request, completion.work.collect())
    choices = [
        choice
        for index, result in enumerate(results)
        for choice in _choices(result, index * completion.fields.choices, logprobs.get(index))
    ]
    answer = completion.frame | {"choices": choices, "usage": _usage(results)}
    return JSONResponse(answer | _warnings(results))


async def _followed(
    work: Translation | Reading,
) -> tuple[dict[int, dict[str, Any]], list[Result]]:
    """Read everything; returns the log probabilities of each text beside the results."""
    found: dict[int, dict[str, Any]] = {}
    logprobs = Logprobs()
    async for delta in work.deltas():
        new = logprobs.of(delta)
        before = found.setdefault(delta.text_index, new)
        if before is not new:
            for name in ("tokens", "token_logprobs", "text_offset"):
                before[name] += new[name]
    return found, work.results()


def _choices(result: Result, first: int, logprobs: dict[str, Any] | None) -> list[dict[str, Any]]:
    told = [(v.text, v.finish) for v in result.hypotheses] or [(result.text, result.finish)]
    return [
        {"index": index, "text": text, "logprobs": logprobs, "finish_reason": _FINISH[finish]}
        for index, (text, finish) in enumerate(told, first)
    ]


def _usage(results: list[Result]) -> dict[str, int]:
    prompt = sum(result.usage.source_tokens for result in results)
    completion = sum(
        sum(variant.tokens for variant in result.hypotheses) or result.usage.target_tokens
        for result in results
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _warnings(results: list[Result]) -> dict[str, list[str]]:
    warnings = warnings_by_text(results)
    return {"warnings": warnings} if warnings else {}


def _stream(request: Request, completion: Completion) -> EventStream:
    fields, logprobs = completion.fields, Logprobs()
    unset = {"usage": None} if fields.includes_usage else {}

    def chunk(index: int, text: str, more: dict[str, Any]) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None} | more
        return event(completion.frame | {"choices": [choice]} | unset)

    def each(delta: Delta) -> bytes:
        scores = logprobs.of(delta) if fields.logprobs is not None else None
        if not delta.text and not (scores and scores["tokens"]):
            return b""
        return chunk(delta.text_index, delta.text, {"logprobs": scores})

    def last() -> bytes:
        results = completion.work.results()
        ready = b"".join(
            chunk(index, "", {"finish_reason": _FINISH[result.finish]})
            for index, result in enumerate(results)
        )
        end = completion.frame | {"choices": []} | _warnings(results)
        if fields.includes_usage:
            ready += event(end | {"usage": _usage(results)})
        elif "warnings" in end:
            ready += event(end)
        return ready + _DONE

    return EventStream(events(request, completion.work.deltas(), each, last, event))


@router.post("/v1/chat/completions", include_in_schema=False)
async def chat(request: Request, shared: Shared) -> None:
    """Refuse, and say what is served."""
    await welcome(request, shared)
    raise NotFound(
        "chat is not served: the models turn one text into another; send it as `prompt` to "
        "/v1/completions"
    )
