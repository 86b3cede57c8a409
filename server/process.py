"""The HTTP process: uvicorn with our signals and an honest exit code."""

import asyncio
import gc
import logging
import os
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from server.guard import guarded
from server.serving import Serving
from server.settings import Settings

logger = logging.getLogger(__name__)

_GRACE_S = 5.0  # beyond the request timeout, for answers to be written
_CANNOT_LISTEN = 3  # exit code
_SWITCH_INTERVAL_S = 0.0005  # the event loop must not wait 5 ms for the engine's thread, nor it


class HttpServer(uvicorn.Server):
    """Drains on SIGTERM or SIGINT, closes at the next, then gives up; ends if loading fails."""

    def __init__(
        self, config: uvicorn.Config, serving: Serving, *, owns_process: bool = False
    ) -> None:
        """Serve what `config` says.

        Args:
            owns_process: whether what is loaded may be kept from garbage collection for good.
        """
        super().__init__(config)
        self._serving = serving
        self._may_freeze = owns_process
        self._drain_delay_s = serving.settings.drain_delay_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new work from now on; close the port after the drain delay.

        uvicorn would raise the signal again once it has shut down; ending in order is success.
        """
        if self.should_exit:
            self.force_exit = True
        elif self._serving.is_draining or not self._drain_delay_s:
            self._serving.is_draining = True
            self.should_exit = True
        else:
            self._serving.is_draining = True
            asyncio.get_running_loop().call_later(self._drain_delay_s, self._close)

    def _close(self) -> None:
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """End when the signal came, or when no model can be served."""
        if self._may_freeze and self._serving.translators and not self._serving.awaited:
            self._may_freeze = False
            gc.collect()
            gc.freeze()  # to search all that is loaded would stop everyone for a tenth of a second
        return await super().on_tick(counter) or self._serving.failure is not None


def run(app: FastAPI, settings: Settings) -> int:
    """Serve `app` until a signal; returns the exit code.

    Where it cannot be served, a line on standard error says why.
    """
    serving: Serving = app.state.serving
    try:
        _verify_address(settings.http_host, settings.http_port)
    except OSError as error:
        _say(f"cannot listen on {settings.http_host} port {settings.http_port}: {error.strerror}")
        return _CANNOT_LISTEN
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    config = uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        http=guarded(settings.header_timeout_s),  # h11 bounds headers at 64 KiB, too
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.request_timeout_s + _GRACE_S),
    )
    server = HttpServer(config, serving, owns_process=True)
    try:
        server.run()
    except SystemExit:  # uvicorn's, which has logged why it cannot listen
        logging.shutdown()
        os._exit(_CANNOT_LISTEN)  # a model that is being loaded is not waited for
    if serving.failure is not None:
        _say(str(serving.failure))
        return 1
    code = 0 if server.started else _CANNOT_LISTEN
    if serving.awaited:  # the threads of a download that nobody needs would hold the process
        logging.shutdown()
        os._exit(code)
    return code


def _verify_address(host: str, port: int) -> None:
    """Raise OSError for an address that is in use, or not this machine's."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _say(message: str) -> None:
    sys.stderr.write(f"stele: {message}\n")
