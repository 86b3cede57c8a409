"""A hub on loopback: the few requests that fetching a snapshot needs, and refusals on demand."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40


class FakeHub:
    """Repositories by `name@commit`, as {file: content}; branches name commits."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {"main": COMMIT, "refs/pr/1": OTHER_COMMIT}
        self.refusals: dict[str, tuple[int, str]] = {}  # name -> status, X-Error-Code
        self.requests: list[str] = []
        self.cut: dict[str, int] = {}  # file -> bytes after which the connection breaks, once
        self.stalls_at: str | None = None  # what is asked for with this in its path waits
        self.stalled, self.goes_on = threading.Event(), threading.Event()
        self.endpoint = ""

    def add(self, name: str, files: dict[str, bytes], commit: str = COMMIT) -> None:
        self.files[f"{name}@{commit}"] = files

    def answer(self, handler: BaseHTTPRequestHandler, *, wants_body: bool) -> None:
        path = handler.path.partition("?")[0].replace("%2F", "/")
        self.requests.append(f"{handler.command} {path}")
        if self.stalls_at is not None and self.stalls_at in path:
            self.stalled.set()
            self.goes_on.wait(60)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            self._tree(handler, *found.groups())
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(handler, *found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w{40})/(.+)", path):
            self._file(handler, *found.groups(), wants_body=wants_body)
        else:
            _send(handler, 404, b"")

    def _refuses(self, handler: BaseHTTPRequestHandler, name: str, commit: str) -> bool:
        if name in self.refusals:
            status, code = self.refusals[name]
            _send(handler, status, b"{}", {"X-Error-Code": code})
            return True
        if f"{name}@{commit}" not in self.files:
            known = any(key.startswith(f"{name}@") for key in self.files)
            code = "RevisionNotFound" if known else "RepoNotFound"
            _send(handler, 404, b"{}", {"X-Error-Code": code})
            return True
        return False

    def _info(self, handler: BaseHTTPRequestHandler, name: str, revision: str | None) -> None:
        commit = self.branches.get(revision or "main", revision or "")
        if not self._refuses(handler, name, commit):
            files = [{"rfilename": file} for file in self.files[f"{name}@{commit}"]]
            body = {"id": name, "modelId": name, "sha": commit, "siblings": files}
            _send(handler, 200, json.dumps(body).encode())

    def _tree(self, handler: BaseHTTPRequestHandler, name: str, commit: str) -> None:
        if not self._refuses(handler, name, commit):
            files = self.files[f"{name}@{commit}"].items()
            body = [
                {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
                for path, content in files
            ]
            _send(handler, 200, json.dumps(body).encode())

    def _file(
        self,
        handler: BaseHTTPRequestHandler,
        name: str,
        commit: str,
        file: str,
        *,
        wants_body: bool,
    ) -> None:
        if self._refuses(handler, name, commit):
            return
        content = self.files[f"{name}@{commit}"][file]
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = 0
        if begin := re.match(r"bytes=(\d+)-", handler.headers.get("Range") or ""):
            start = int(begin[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.requests.append(f"RANGE {start} {file}")
        rest = content[start:]
        end = self.cut.pop(file, len(rest)) if wants_body else len(rest)
        _send(handler, 206 if start else 200, rest, headers, wants_body=wants_body, end=end)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    *,
    wants_body: bool = True,
    end: int | None = None,
) -> None:
    handler.send_response(status)
    for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        handler.send_header(key, value)
    handler.end_headers()
    if wants_body and handler.command != "HEAD":
        handler.wfile.write(body[:end])
    if end is not None and end < len(body):
        handler.close_connection = True


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.answer(self, wants_body=True)

        def do_HEAD(self) -> None:
            hub.answer(self, wants_body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.goes_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
