"""One count, one duration and one log line for each HTTP request; never its text."""

import json
import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import Refused, ServiceError, TooLarge
from server.metrics import Metrics
from server.problems import respond

logger = logging.getLogger("server.access")

_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_REFUSED = (429, 503)
_PROBES = ("/livez", "/readyz", "/health", "/metrics")  # asked for ever; logged when debugging


class AccessLog:
    """ASGI middleware: gives each request its id and records how it ended.

    A stream's outcome is not its status: whoever ends one sets `request.state.outcome`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and record it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        began, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name in ("X-Request-ID", *state.get("id_headers", ())):
                    headers[name] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # a fault of ours: the last place that can still answer
            state["outcome"], state["error"] = "failed", error
            if status:
                raise
            logger.exception("request %s failed", request_id)
            fault = ServiceError("something failed in the server; its log has more")
            await respond(Request(scope), fault)(scope, receive, send_with_id)
        finally:
            self._record(scope, state, status, time.monotonic() - began)

    def _record(
        self, scope: Scope, state: MutableMapping[str, Any], status: int, elapsed_s: float
    ) -> None:
        route = getattr(scope.get("route"), "path", "other")
        outcome = state.get("outcome") or _outcome(status)
        error = state.get("error")
        self._metrics.requests.labels(route, outcome).inc()
        self._metrics.request_s.labels(route).observe(elapsed_s)
        reason = _reason(error, outcome)
        if reason is not None:
            self._metrics.rejected.labels(reason).inc()
        level = logging.DEBUG if route in _PROBES else logging.INFO
        if not logger.isEnabledFor(level):
            return
        line = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "outcome": outcome,
            "seconds": round(elapsed_s, 4),
            "error": getattr(error, "code", None),
        }
        logger.log(level, json.dumps(line | state.get("log", {})))


def _request_id(scope: Scope) -> str:
    sent = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"").decode("latin-1")
    return sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def _outcome(status: int) -> str:
    if status in _REFUSED:
        return "rejected"
    if status == 499 or status == 0:
        return "cancelled"
    if status == 504:
        return "expired"
    if status >= 500:
        return "failed"
    return "invalid" if status >= 400 else "ok"


def _reason(error: object, outcome: str) -> str | None:
    if isinstance(error, Refused):
        return error.reason
    if isinstance(error, TooLarge):
        return TooLarge.code
    return "deadline" if outcome == "expired" else None
