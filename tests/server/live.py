"""A real uvicorn on a free loopback port, in a thread, and a gate that holds the model's steps."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import httpx
import uvicorn

from model import Model, Pending, Runner
from server.app import create_app
from server.guard import guarded
from server.process import HttpServer
from server.serving import Serving
from server.settings import Settings


class Gate:
    """A runner whose decode steps pass one by one while it is closed."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._is_open = True
        self._changed = threading.Condition()
        self._allowed = 0
        self.steps = 0

    def close(self) -> None:
        with self._changed:
            self._is_open, self._allowed = False, 0

    def open(self) -> None:
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def allow(self, steps: int) -> None:
        with self._changed:
            self._allowed += steps
            self._changed.notify_all()

    def launch(self, rows: Sequence[int], steps: int = 1) -> Pending:
        with self._changed:
            assert self._changed.wait_for(lambda: self._is_open or self._allowed > 0, timeout=20)
            self._allowed -= 1
            self.steps += 1
        return self._runner.launch(rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


def gated(model: Model) -> tuple[Model, Gate]:
    gate = Gate(model.runner)
    return replace(model, runner=cast(Runner, gate)), gate


class Live:
    """A running server and what a test asks of it."""

    def __init__(self, url: str, serving: Serving, server: HttpServer) -> None:
        self.url, self.serving, self.server = url, serving, server
        self.client = httpx.Client(base_url=url, timeout=30)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)

    def metric(self, name: str, **labels: str) -> float:
        value = self.serving.metrics.registry.get_sample_value(f"stele_{name}", labels)
        return 0.0 if value is None else value

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        waiting = threading.Event()
        for _ in range(1000):
            if is_true():
                return
            waiting.wait(0.01)
        raise AssertionError("it did not become true within 10 s")

    @property
    def held(self) -> int:
        """Generations that the engines have not ended."""
        return sum(t.engine.held for t in self.serving.translators.values())


@contextmanager
def serve(*models: Model, wait_for_ready: bool = True, **settings: Any) -> Iterator[Live]:
    configured = Settings(**{"http_port": 0, "request_timeout_s": 30, **settings})
    app = create_app(configured, models)
    serving: Serving = app.state.serving
    server = HttpServer(
        uvicorn.Config(
            app,
            port=0,
            http=guarded(configured.header_timeout_s),
            log_config=None,
            timeout_graceful_shutdown=20,
        ),
        serving,
    )
    thread = threading.Thread(target=server.run, name="http")
    thread.start()
    waiting = threading.Event()
    try:
        while not server.started:
            assert thread.is_alive()
            waiting.wait(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        live = Live(f"http://127.0.0.1:{port}", serving, server)
        with live.client:
            if wait_for_ready:
                live.wait_until(lambda: serving.status == "ready")
            yield live
    finally:
        for model in models:
            if isinstance(model.runner, Gate):
                model.runner.open()
        server.should_exit = True
        thread.join()


@contextmanager
def crowded(model: Model) -> Iterator[Live]:
    """A server whose queue is full until it is left."""
    held, gate = gated(model)
    with serve(held, slots=1, max_waiting_segments=1) as live:
        gate.close()
        body = {"q": "I am tired. I like it. I am lost.", "source": "en", "target": "de"}
        waiting = threading.Thread(target=live.post, args=("/translate", body))
        waiting.start()
        live.wait_until(lambda: live.held == 3)
        try:
            yield live
        finally:
            gate.open()
            waiting.join()
