"""Servers as processes: started on a free loopback port, awaited, measured and ended."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.memory import Memory, memory_of

ROOT = Path(__file__).parent.parent


class ServerFailed(RuntimeError):
    """A server ended or did not become ready; the message is its last line."""


class Server:
    """One process; leaving the `with` ends it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        ready_path: str = "/readyz",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; `{port}` in the command becomes a free port."""
        self.port = _free_port()
        self._ready_path = ready_path
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - kept while the server runs
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            [part.replace("{port}", str(self.port)) for part in command],
            cwd=ROOT,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **(environment or {})},
        )
        self.ready_s = 0.0
        self.loaded = Memory(0.0, 0.0)

    def wait(self, timeout_s: float = 120.0) -> Self:
        """Wait until it is ready; raises ServerFailed."""
        while time.perf_counter() - self.began < timeout_s:
            if self._process.poll() is not None:
                raise ServerFailed(self._last_line())
            if self._is_ready():
                self.ready_s = time.perf_counter() - self.began
                self.loaded = self.memory()
                return self
            time.sleep(0.02)
        raise ServerFailed(f"not ready within {timeout_s:.0f} s: {self._last_line()}")

    def _is_ready(self) -> bool:
        request = f"GET {self._ready_path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(request.encode())
                return b" 200 " in connection.recv(64)
        except OSError:
            return False

    def memory(self) -> Memory:
        """Return what the process holds, and held at most."""
        return memory_of(self._process.pid)

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a word"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def stele(folder: Path, **flags: str | int) -> Server:
    """Serve a checkpoint as users do; flags as `stele serve` takes them."""
    command = [sys.executable, "-m", "server", "serve", "--port", "{port}"]
    command += ["--log-level", "warning", "--model", f"measured={folder}"]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return Server(command)


def ctranslate2(folder: Path, *, intra: int, inter: int, precision: str = "int8") -> Server:
    """Serve a conversion behind FastAPI and a dynamic batcher."""
    command = [sys.executable, "-m", "benchmarks.peers.ct2_server", str(folder)]
    command += ["--port", "{port}", "--precision", precision]
    return Server([*command, "--intra", str(intra), "--inter", str(inter)])


def libretranslate(python: Path, argos: Path, settings: Mapping[str, str] | None = None) -> Server:
    """Serve the Argos packages with LibreTranslate itself, its cache and home in a folder here.

    Args:
        settings: variables of Argos; its defaults otherwise.
    """
    launcher = ROOT / "benchmarks" / "peers" / "libretranslate_launcher.py"
    command = [str(python), str(launcher), "--host", "127.0.0.1", "--port", "{port}"]
    command += ["--disable-web-ui", "--disable-files-translation"]
    home = {f"XDG_{name}_HOME": str(argos / name.lower()) for name in ("DATA", "CONFIG", "CACHE")}
    return Server(
        command,
        ready_path="/languages",
        environment={**home, "ARGOS_PACKAGES_DIR": str(argos / "packages"), **(settings or {})},
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
