"""What handlers have in common: the shared state, keys, and the OpenAPI of bodies read by hand."""

from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel

from server.bodies import read_fields
from server.errors import Draining
from server.serving import Serving


def serving(request: Request) -> Serving:
    """Return the state that `create_app` put beside the application."""
    shared: Serving = request.app.state.serving
    return shared


Shared = Annotated[Serving, Depends(serving)]


def authorise(request: Request, shared: Serving, key: str | None = None) -> None:
    """Accept the request's key, or raise MissingKey or InvalidKey."""
    shared.keys.verify(request.headers.get("authorization"), key)


async def fields_of(request: Request, shared: Serving) -> dict[str, Any]:
    """Read the request's fields within the configured limits."""
    settings = shared.settings
    return await read_fields(request, settings.max_body_bytes, settings.body_timeout_s)


def refuse_while_draining(shared: Serving) -> None:
    """Raise Draining before any work is done for a request that is too late."""
    if shared.is_draining:
        raise Draining("the server is shutting down; retry on another instance", 1.0)


def body_of(kind: type[BaseModel], *media: str) -> dict[str, Any]:
    """Describe for OpenAPI a body that a handler reads by hand."""
    schema = kind.model_json_schema()
    content = {one: {"schema": schema} for one in ("application/json", *media)}
    return {"requestBody": {"required": True, "content": content}}
