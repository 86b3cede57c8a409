"""The rest of text-generation-inference's dialect: its root path, which is also where pipelines
of the hub's client send texts to translate or summarise, and what the server is."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from server import __version__
from server.bodies import validate
from server.errors import InvalidRequest
from server.preparation import Wishes
from server.routes.generate import (
    Parameters,
    Prepared,
    RawRequest,
    collected,
    prepare_raw,
    speak_tgi,
    streamed,
)
from server.routes.shared import Shared, body_of, welcome
from server.routing import Translation, prepare
from server.serving import Serving
from server.streaming import EVENTS, while_connected

router = APIRouter(tags=["generation"], dependencies=[Depends(speak_tgi)])


class RootParameters(Parameters):
    """Those of /generate, and those of the hub's pipelines for translation and summaries."""

    src_lang: str | None = Field(None, description="A language code, or auto.")
    tgt_lang: str | None = Field(
        None, description="The input is translated; without one it is the model's raw input."
    )
    truncation: Literal["do_not_truncate"] | None = None
    clean_up_tokenization_spaces: Literal[False] | None = None

    @property
    def translates(self) -> bool:
        """Whether a pair of languages is named."""
        return self.tgt_lang is not None


class RootRequest(RawRequest):
    """The body says whether the answer is a stream."""

    parameters: RootParameters = Field(default_factory=RootParameters)
    stream: bool | None = None

    def verify(self) -> None:
        """Refuse what would have no effect; raises InvalidRequest."""
        sent = self.parameters
        if (sent.src_lang is None) != (sent.tgt_lang is None):
            raise InvalidRequest("src_lang and tgt_lang are sent together, or not at all")
        if not sent.translates:
            return
        refused = {
            "stream": bool(self.stream),
            "details": sent.details,
            "alignments": sent.wants_alignments,
            "num_return_sequences": sent.returns_several,
        }
        for name, is_sent in refused.items():
            if is_sent:
                raise InvalidRequest(f"{name} is not served with tgt_lang; see /translate")


async def _submitted(
    request: Request, shared: Shared
) -> AsyncIterator[tuple[RootRequest, Prepared | Translation]]:
    """Submit before the first byte, while a status can still be sent; give up at the end."""
    fields = validate(RootRequest, _flat(await welcome(request, shared)))
    fields.verify()
    if fields.parameters.translates:
        translation = await _translation(fields, shared)
        async with translation:
            yield fields, translation
    else:
        prepared = await prepare_raw(fields, shared, streams=bool(fields.stream))
        async with prepared.reading:
            yield fields, prepared


def _flat(sent: dict[str, Any]) -> dict[str, Any]:
    """Put `generate_parameters`, as pipelines nest them, among the other parameters."""
    parameters = sent.get("parameters")
    if not isinstance(parameters, dict) or "generate_parameters" not in parameters:
        return sent
    others = {name: value for name, value in parameters.items() if name != "generate_parameters"}
    nested = parameters["generate_parameters"]
    if not isinstance(nested, dict):
        raise InvalidRequest("generate_parameters must be an object")
    if twice := sorted(others.keys() & nested.keys()):
        raise InvalidRequest(f"{twice[0][:100]!r} is both in parameters and generate_parameters")
    return sent | {"parameters": others | nested}


async def _translation(fields: RootRequest, shared: Serving) -> Translation:
    return await prepare(
        shared,
        [fields.inputs],
        fields.parameters.src_lang or "auto",
        fields.parameters.tgt_lang or "",
        fields.parameters,
        Wishes(),
        model=fields.model,
        timeout_s=shared.settings.request_timeout_s,
    )


@router.post(
    "/",
    summary="Generate from raw input, streaming where asked to; or translate",
    response_model=None,
    responses=EVENTS,
    openapi_extra=body_of(RootRequest),
)
async def root(
    request: Request,
    submitted: Annotated[tuple[RootRequest, Prepared | Translation], Depends(_submitted)],
) -> Response:
    """Answer a list of one: `generated_text`, or `translation_text` where languages are named."""
    fields, work = submitted
    if isinstance(work, Translation):
        (result,) = await while_connected(request, work.collect())
        warnings = {"warnings": list(result.warnings)} if result.warnings else {}
        return JSONResponse([{"translation_text": result.text, **warnings}])
    if fields.stream:
        return streamed(request, work)
    answer = await while_connected(request, collected(work))
    if "stream" not in fields.model_fields_set:
        # Pipelines that name no languages send the same as each other, and read different names.
        text = answer["generated_text"]
        answer |= {"translation_text": text, "summary_text": text}
    return JSONResponse([answer])


@router.get("/info", summary="The first model and the limits, as text-generation-inference says")
async def info(shared: Shared) -> JSONResponse:
    """Describe the model that raw input goes to by default."""
    card, settings = shared.candidates()[0].card, shared.settings
    described = {
        "model_id": card.name,
        "model_sha": card.revision,
        "model_dtype": card.precision,
        "model_device_type": settings.device.partition(":")[0],
        "model_pipeline_tag": "text2text-generation",
        "max_concurrent_requests": settings.max_waiting_segments,
        "max_best_of": 1,
        "max_stop_sequences": None,
        "max_input_tokens": card.max_source,
        "max_input_length": card.max_source,
        "max_total_tokens": card.max_source + card.max_target,
        "max_client_batch_size": 1,
        "validation_workers": 1,
        "router": "stele",
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
    return JSONResponse(described)
