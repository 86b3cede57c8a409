"""The `stele` process as a whole: start, signals, exit codes, and the command line."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from model import Model
from tests.model.fake_hub import fake_hub

ROOT = Path(__file__).parent.parent.parent
STELE = [sys.executable, "-m", "server"]
LONG = {"source": "en", "target": "de", "max_new_tokens": 60, "min_new_tokens": 60}


def environment(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STELE_")}
    return {**clean, "OMP_NUM_THREADS": "1", **more}


class Process:
    """A `stele serve` of its own."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.lines: list[str] = []
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = ""

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line)
            self._news.put(line)

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        while True:
            if found := re.search(pattern, self._news.get(timeout=60)):
                return found

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while httpx.get(f"{self.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)

    def end(self, signal_number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(signal_number)
        return self.wait()

    def wait(self) -> int:
        code = self.popen.wait(timeout=60)
        self._reader.join()
        return code


@contextmanager
def serving(*flags: str, is_ready: bool = True, **env: str) -> Iterator[Process]:
    with subprocess.Popen(
        [*STELE, "serve", "--port", "0", *flags],
        cwd=ROOT,
        env=environment(**env),
        stderr=subprocess.PIPE,
        text=True,
    ) as popen:
        process = Process(popen)
        try:
            process.url = process.wait_for_line(r"running on (http://[\d.:]+)")[1]
            if is_ready:
                process.wait_until_ready()
            yield process
        finally:
            if popen.poll() is None:
                popen.kill()
            process.wait()


def post(url: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/translate", json={**LONG, **fields}, timeout=60)


def stream_to_end(url: str, started: Callable[[], None]) -> str:
    body = {**LONG, "q": "I am tired."}
    with httpx.stream("POST", f"{url}/translate/stream", json=body, timeout=60) as answer:
        received = ""
        for line in answer.iter_lines():
            started()
            received += line + "\n"
    return received


def wait_for_source_tokens(url: str, count: int) -> None:
    deadline = time.monotonic() + 30
    line = f'stele_source_tokens_total{{model="en-de"}} {count}.0'
    while line not in httpx.get(f"{url}/metrics").text:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_loses_nothing_that_was_accepted_and_the_exit_code_is_0(
    number: int, bundled: Model
) -> None:
    with serving("--slots", "4") as process, ThreadPoolExecutor(8) as clients:
        streaming = threading.Event()
        streams = [clients.submit(stream_to_end, process.url, streaming.set) for _ in range(2)]
        assert streaming.wait(30)
        texts = [f"I have {i} cats." for i in range(8)]  # more than there are slots: some wait
        plain = [clients.submit(post, process.url, q=texts) for _ in range(2)]
        sent = ["I am tired."] * 2 + texts * 2
        wait_for_source_tokens(
            process.url,
            sum(len(bundled.tokenizer.prompt(text, "en", "de").source) for text in sent),
        )

        process.popen.send_signal(number)

        for each in plain:
            assert each.result().status_code == 200
            assert len(each.result().json()["translatedText"]) == 8
        for stream in streams:
            assert "event: done" in stream.result()
        assert process.wait() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(process.url)
    assert not any("Traceback" in line for line in process.lines)


def test_while_it_drains_new_work_is_refused_and_readiness_is_gone() -> None:
    with serving("--drain-delay-s", "60") as process:
        process.popen.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while httpx.get(f"{process.url}/readyz").json()["status"] != "draining":
            assert time.monotonic() < deadline
        assert httpx.get(f"{process.url}/readyz").status_code == 503
        assert httpx.get(f"{process.url}/livez").status_code == 200
        for path in ("translate", "translate/stream", "detect", "generate"):
            refused = httpx.post(f"{process.url}/{path}", json={"q": "a"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1"), path
            assert refused.json()["code"] == "draining"
        assert 'reason="draining"} 4.0' in httpx.get(f"{process.url}/metrics").text
        assert process.end() == 0  # a second signal does not wait for the delay


def test_a_signal_while_the_model_loads_ends_in_order() -> None:
    with serving(is_ready=False) as process:
        assert process.end() == 0
    assert not any("Traceback" in line for line in process.lines)


def test_a_signal_while_a_model_is_fetched_does_not_wait_for_it(tmp_path: Path) -> None:
    with fake_hub() as hub:
        hub.add("org/name", {"config.json": b"{}", "vocab.json": b"{}", "model.safetensors": b"x"})
        hub.stalls_at = "/resolve/"
        env = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        with serving("--model", "org/name", is_ready=False, **env) as process:
            assert hub.stalled.wait(30)
            ready = httpx.get(f"{process.url}/readyz").json()
            assert ready["progress"] == "loading org/name (1 of 1)"
            assert ready["models"] == {"org/name": "loading"}
            assert process.end() == 0
            assert not hub.goes_on.is_set()
        assert not any("Traceback" in line for line in process.lines)


def test_offline_a_model_that_is_not_here_ends_the_process_and_nothing_is_asked(
    tmp_path: Path,
) -> None:
    with fake_hub() as hub:
        done = subprocess.run(
            [*STELE, "serve", "--port", "0"],
            cwd=ROOT,
            env=environment(
                HF_ENDPOINT=hub.endpoint,
                HF_HUB_CACHE=str(tmp_path),
                STELE_OFFLINE="1",
                STELE_MODEL="model/bundled/en-de, org/name",
            ),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert "`stele download org/name` fetches it" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.requests == []


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["--model", "/nowhere"], 1, "/nowhere is not a folder"),
        (["--model", "tests/data"], 1, "tests/data/config.json is missing"),
        (["--slots", "0"], 2, "--slots: Input should be greater than or equal to 1"),
        (["--port", "99999"], 2, "--port: Input should be less than or equal to 65535"),
        (["--device", "tpu"], 2, "--device: "),
    ],
)
def test_what_cannot_be_served_ends_the_process_with_one_line(
    flags: list[str], code: int, sentence: str
) -> None:
    done = subprocess.run(
        [*STELE, "serve", "--port", "0", *flags],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_ends_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*STELE, "serve", "--port", port],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode != 0
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_variable_is_refused_and_kubernetes_own_are_not() -> None:
    done = subprocess.run(
        [*STELE, "serve", "--slots", "0"],
        cwd=ROOT,
        env=environment(STELE_SLOT="3"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "STELE_SLOT is not a setting" in done.stderr
    with serving(is_ready=False, STELE_PORT="tcp://10.0.0.1:80", STELE_SERVICE_HOST="x") as process:
        assert process.end() == 0


def translate(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STELE, "translate", *arguments],
        cwd=ROOT,
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_lines_from_standard_input_are_translated_in_order() -> None:
    done = translate("--from", "en", "--to", "de", stdin="I am tired.\n\n12:30\nThank you.\n")
    assert done.returncode == 0, done.stderr
    first, blank, number, last, end = done.stdout.split("\n")
    assert "müde" in first
    assert (blank, number, end) == ("", "12:30", "")
    assert last
    assert done.stderr == ""


def test_files_and_text_are_translated(tmp_path: Path) -> None:
    one = tmp_path / "one.txt"
    one.write_text("I am tired.\nI am tired.\n")
    files = translate("--from", "en", "--to", "de", str(one))
    text = translate("--from", "en", "--to", "de", "--text", "I am tired.")
    assert files.stdout == text.stdout * 2 != ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "fr", "--text", "a"], "fr is not supported; the loaded languages are: de, en"),
        (["/nowhere.txt"], "/nowhere.txt"),
        (["--model", "/nowhere", "--text", "a"], "/nowhere is not a folder"),
    ],
)
def test_the_command_line_fails_with_one_line(arguments: list[str], sentence: str) -> None:
    done = translate(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_explains_every_setting_and_names_its_variable() -> None:
    done = subprocess.run(
        [*STELE, "serve", "--help"],
        cwd=ROOT,
        env=environment(COLUMNS="400"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    for name in ("STELE_HTTP_PORT", "STELE_SLOTS", "STELE_DRAIN_DELAY_S", "STELE_CORS_ORIGIN"):
        assert name in done.stdout
