"""What handlers have in common: the shared state, keys, and the OpenAPI of bodies read by hand."""

from collections.abc import Collection, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel

from server.auth import key_in
from server.bodies import read_fields
from server.errors import Draining, InvalidRequest
from server.reader import Aligned
from server.results import Result
from server.serving import Serving


async def serving(request: Request) -> Serving:
    """Return the state that `create_app` put beside the application.

    A coroutine, as all dependencies: FastAPI would send a plain function to a worker thread.
    """
    shared: Serving = request.app.state.serving
    return shared


Shared = Annotated[Serving, Depends(serving)]


async def welcome(
    request: Request,
    shared: Serving,
    *,
    key_field: str = "api_key",
    repeated: Collection[str] = (),
    max_files: int = 0,
) -> dict[str, Any]:
    """Read the fields of a request for work, within the configured limits.

    Its key is verified before its body is read, unless the body is where the key would be.

    Args:
        key_field: where the body or the query may hold the key.
        repeated, max_files: as `read_fields` takes them.

    Raises:
        Draining: before anything else is done for a request that comes too late.
        MissingKey, InvalidKey, and what `read_fields` raises.
    """
    if shared.is_draining:
        raise Draining("the server is shutting down; retry on another instance", 1.0)
    header = request.headers.get("authorization")
    holds_key = key_in(header) is not None  # a proxy may have put its own password there
    if holds_key:
        shared.keys.verify(header, None)
    settings = shared.settings
    fields = await read_fields(
        request,
        settings.max_body_bytes,
        settings.body_timeout_s,
        repeated=repeated,
        max_repeats=settings.max_texts if repeated else 0,
        max_files=max_files,
    )
    key = fields.get(key_field)
    if not holds_key:
        shared.keys.verify(None, key if isinstance(key, str) else None)
    return fields


def verify_present(sent: dict[str, Any], *names: str) -> None:
    """Raise InvalidRequest, in LibreTranslate's words, for the first field that is not there."""
    for name in names:
        if sent.get(name) in (None, "", []):
            raise InvalidRequest(f"Invalid request: missing {name} parameter")


def body_of(kind: type[BaseModel], *media: str) -> dict[str, Any]:
    """Describe for OpenAPI a body that a handler reads by hand."""
    schema = kind.model_json_schema()
    content = {one: {"schema": schema} for one in ("application/json", *media)}
    return {"requestBody": {"required": True, "content": content}}


def aligned(segment: Aligned) -> dict[str, Any]:
    """Describe one segment's attention: a row of weights for each target token."""
    return {
        "source": segment.source,
        "target": segment.target,
        "weights": [weights(row) for row in segment.weights],
    }


def weights(alignment: tuple[float, ...]) -> list[float]:
    """Round attention to what is worth sending."""
    return [round(weight, 4) for weight in alignment]


def warnings_by_text(results: Sequence[Result]) -> list[str]:
    """Return the results' warnings, each with the number of its text."""
    return [
        f"text {index}: {warning}"
        for index, result in enumerate(results)
        for warning in result.warnings
    ]
