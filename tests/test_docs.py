"""What the documents say is true: commands run as written, and nothing is left out."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from server import __version__
from server.app import create_app
from server.settings import Settings, variable

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)
CURLS = [command for command in COMMANDS if command.startswith("curl")]
SWITCHES = [command for command in COMMANDS if command.startswith(".venv/bin/python -c")]
SERVES = [command for command in COMMANDS if command.startswith("make serve")]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("STELE_", "MAKE", "MFLAGS"))}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.skipif(
    not (ROOT / ".venv/installed").exists(), reason="needs what make install builds"
)
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_readme_work_as_written() -> None:
    """Start with the last `make serve`, and try each client against it; only the port differs."""
    assert len(SERVES) == 2
    assert len(CURLS) == 3
    assert len(SWITCHES) == 4
    port = free_port()
    with subprocess.Popen(
        f"{SERVES[-1]} PORT={port}",
        shell=True,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as server:
        try:
            _wait_until_ready(port)
            plain, stream, tagged, *switched = (
                _shell(command.replace("8000", str(port))) for command in [*CURLS, *SWITCHES]
            )
        finally:
            os.killpg(server.pid, signal.SIGINT)
            output, _ = server.communicate(timeout=60)
    assert "Bahnhof" in json.loads(plain)["translatedText"]
    assert stream.startswith("event: delta\n")
    assert "event: done\n" in stream
    assert "Herberge</b>" in json.loads(tagged)["translatedText"]
    assert "{name}" in json.loads(tagged)["translatedText"]
    assert switched == ["Gute Nacht!\n"] * 4
    assert f"curl -s localhost:{port}/translate" in output
    assert "Traceback" not in output


@pytest.mark.skipif(
    not (ROOT / ".venv/installed").exists(), reason="needs what make install builds"
)
def test_the_command_line_of_the_readme_works_as_written(tmp_path: Path) -> None:
    lines, files = (command for command in COMMANDS if "stele translate" in command)
    assert "station" in _shell(lines).lower()

    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("<p>Where is the <b>hotel</b>?</p>\n")
    (tmp_path / "terms.tsv").write_text("hotel\tHerberge\n")
    _shell(files, tmp_path)
    assert "Herberge</b>" in (tmp_path / "site-de/index.html").read_text()


def _shell(command: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx.ConnectError:
            pass
        threading.Event().wait(0.1)
    raise AssertionError("the server did not become ready")


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_in_the_readme(field: str) -> None:
    assert f"`{variable(field)}`" in README


def test_every_path_is_in_the_readme() -> None:
    for path in create_app(Settings(), []).openapi()["paths"]:
        assert path in README, path


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert found is not None
    assert found[1] == __version__


def test_every_module_named_in_the_architecture_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:model|server|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
        assert (folder / target).exists(), target


def test_documents_name_no_machine() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\.\./shared|/work/|/root/|pypi", text, re.IGNORECASE), path
    assert sys.version_info >= (3, 11)
