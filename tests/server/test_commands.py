"""`stele models`, `download` and `convert`: what they print, and their errors in one line."""

import io
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from model import BUNDLED
from server.app import create_app
from server.cli import app
from server.models_table import directions, print_text
from server.process import run
from server.settings import Settings
from tests.model.fake_hub import COMMIT, OTHER_COMMIT, FakeHub, fake_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub, and a cache for it, where the commands look for them."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with fake_hub() as running:
        changes = {
            "ENDPOINT": running.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": running.endpoint
            + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }
        for name, value in changes.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield running


def stele(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})


def refused(*arguments: str) -> str:
    done = stele(*arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("stele: ")]
    assert len(lines) == 1
    return lines[0]


def checkpoint() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in BUNDLED.iterdir()}


def pickled_checkpoint(tmp_path: Path) -> dict[str, bytes]:
    files = checkpoint()
    del files["model.safetensors"]
    torch.save(load_file(BUNDLED / "model.safetensors"), tmp_path / "weights")
    return {**files, "pytorch_model.bin": (tmp_path / "weights").read_bytes()}


def test_models_are_described_in_a_table_and_as_json(tmp_path: Path) -> None:
    table = stele("models").stdout
    for word in ("en-de", "marian", "10.0 M", "int8", "de <-> en", "512", "511", "21 MB"):
        assert word in table, word
    (one,) = json.loads(stele("models", "--json", "--model", f"mine={BUNDLED}").stdout)
    assert one["name"] == "mine"
    assert one["targets"] == {"de": ["en"], "en": ["de"]}
    assert one["bytes"] == sum(path.stat().st_size for path in BUNDLED.iterdir())
    assert one["revision"] is None


def test_models_are_described_without_their_weights(tmp_path: Path) -> None:
    folder = tmp_path / "no-weights"
    shutil.copytree(BUNDLED, folder, ignore=lambda *_: ["model.safetensors"])
    (one,) = json.loads(stele("models", "--json", "--model", str(folder)).stdout)
    (bundled,) = json.loads(stele("models", "--json").stdout)
    same = ("architecture", "parameters", "max_source", "max_target", "targets")
    assert {key: one[key] for key in same} == {key: bundled[key] for key in same}


def test_a_model_that_cannot_be_described_is_named(tmp_path: Path, hub: FakeHub) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    assert "x: " in refused("models", "--model", f"x={broken}")
    assert "`stele download org/name` fetches it" in refused("models", "--model", "org/name")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        ({}, "nothing: /generate only"),
        ({"en": ("de",)}, "en -> de"),
        ({"en": ("de",), "de": ("en",)}, "de <-> en"),
        (dict.fromkeys("abc", ("a", "b", "c")), "a, b, c <-> each other"),
        (
            {"en": tuple(f"x{n}" for n in range(9))},
            "en -> x0, x1, x2, x3, x4, x5, x6, x7 and 1 more",
        ),
    ],
)
def test_directions_are_shortened(targets: dict[str, tuple[str, ...]], text: str) -> None:
    assert directions(targets) == text


def test_download_fetches_prints_the_folder_and_serves_offline_later(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.add("org/name", checkpoint())
    done = stele("download", "org/name")
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.strip()).name == COMMIT
    hub.requests.clear()
    (one,) = json.loads(stele("models", "--json", "--model", "org/name").stdout)
    assert (one["name"], one["source"], one["revision"]) == ("org/name", "org/name", COMMIT)
    assert hub.requests == []


def test_download_takes_a_revision_in_either_place(hub: FakeHub) -> None:
    hub.add("org/name", checkpoint(), OTHER_COMMIT)
    for arguments in (("org/name@refs/pr/1",), ("org/name", "--revision", "refs/pr/1")):
        assert Path(stele("download", *arguments).stdout.strip()).name == OTHER_COMMIT
    assert "org/name has no revision main" in refused("download", "org/name")


def test_download_refuses_what_is_not_on_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    assert "is a folder already" in refused("download", str(tmp_path))
    assert "is not a folder, nor a hub name" in refused("download", "x")
    assert "is neither a folder nor a repository" in refused("download", "org/none")


def test_convert_makes_a_pickled_repository_servable(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/old", pickled_checkpoint(tmp_path))
    assert "`stele convert org/old OUT`" in refused("download", "org/old")
    out = tmp_path / "out"
    done = stele("convert", "org/old", str(out))
    assert done.exit_code == 0, done.output
    assert f"stele serve --model {out}" in done.stdout
    (one,) = json.loads(stele("models", "--json", "--model", str(out)).stdout)
    assert one["parameters"] == 9955651
    assert "exists and is not an empty folder" in refused("convert", "org/old", str(out))


def test_convert_takes_a_revision_with_safetensors(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/old", {"pytorch_model.bin": b"never read", "config.json": b"{}"})
    hub.add("org/old", checkpoint(), OTHER_COMMIT)
    out = tmp_path / "out"
    done = stele("convert", "org/old", str(out), "--revision", "refs/pr/1")
    assert done.exit_code == 0, done.output
    same = (out / "model.safetensors").read_bytes()
    assert same == (BUNDLED / "model.safetensors").read_bytes()
    assert not [one for one in hub.requests if "pytorch_model.bin" in one]


def test_convert_says_if_the_result_cannot_be_served(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(BUNDLED, folder)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    line = refused("convert", str(folder), str(out))
    assert f"{out} is written, but cannot be served" in line
    assert "gpt2" in line


def test_convert_refuses_a_hostile_pickle_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(BUNDLED, folder, ignore=lambda *_: ["model.safetensors"])
    torch.save({"a": Hostile(tmp_path / "pwned")}, folder / "pytorch_model.bin")
    line = refused("convert", str(folder), str(tmp_path / "out"))
    assert "is refused, nothing in it was run" in line
    assert not (tmp_path / "pwned").exists()


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_the_server_says_how_to_convert_a_pickled_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(BUNDLED, folder, ignore=lambda *_: ["model.safetensors"])
    (folder / "pytorch_model.bin").touch()
    line = refused("translate", "--text", "a", "--model", str(folder))
    assert f"`stele convert {folder} OUT`" in line


def test_lines_are_translated_by_the_model_that_knows_the_pair(tmp_path: Path) -> None:
    text = ["--from", "en", "--to", "de", "--text", "I am tired."]
    done = stele("translate", *text, "--model", str(BUNDLED), "--model", f"b={BUNDLED}")
    assert (done.exit_code, "müde" in done.stdout) == (0, True)


def test_a_model_of_many_languages_is_described_in_80_columns() -> None:
    codes = tuple(f"{n:03d}_Latn" for n in range(202))
    row: dict[str, Any] = {"name": "facebook/nllb-200-distilled-600M", "architecture": "m2m_100"}
    row |= {"parameters": 615_073_792, "precision": "bfloat16", "bytes": 2_483_000_000}
    row |= {"max_source": 1024, "max_target": 200, "source": row["name"], "revision": "f8d3" * 10}
    out = io.StringIO()
    print_text([row | {"targets": dict.fromkeys(codes, codes)}], out)
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "and 194 more <-> each other" in " ".join(out.getvalue().split())
    assert "@f8d3f8d3f8d3\n" in out.getvalue()


@pytest.mark.parametrize("command", ["serve", "models", "download", "convert", "translate"])
def test_help_teaches(command: str) -> None:
    done = stele(command, "--help")
    assert done.exit_code == 0
    assert "organisation/name" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ["stele translate --text", "stele serve --model", "stele COMMAND --help"]),
        ("translate", ["--suffix .de", "Exit codes", "--glossary", "What is translated"]),
        (
            "serve",
            ["STELE_SLOTS; default: 64", "Exit codes", "Network", "Limits", "STELE_API_KEYS"],
        ),
        ("models", ["stele models --json"]),
    ],
)
def test_help_has_examples_groups_variables_and_defaults(command: str, words: list[str]) -> None:
    for width in ("80", "300"):
        arguments = [*filter(None, [command]), "--help"]
        shown = CliRunner().invoke(app, arguments, env={"COLUMNS": width}).stdout
        assert max(map(len, shown.splitlines())) <= int(width)
        flat = " ".join(shown.replace("\u2502", " ").split())
        for word in words:
            assert word in flat or width == "80", word


def test_a_port_that_is_taken_and_a_model_that_is_none_are_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.setswitchinterval", lambda seconds: None)  # it is this process's
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        settings = Settings(http_port=port)
        assert run(create_app(settings), settings) == 3
    line = f"stele: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert capfd.readouterr().err == line
    settings = Settings(http_port=0, model=(str(tmp_path),))
    assert run(create_app(settings), settings) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"stele: {tmp_path}/config.json is")
