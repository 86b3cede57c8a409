"""`stele bench`: its help, and what it says where something is missing."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks import suite
from benchmarks.bench import Bench
from benchmarks.suite import Section
from server.cli import app


def stele(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})


def test_help_names_the_options() -> None:
    text = " ".join(stele("bench", "--help").stdout.split())
    for option in ("--quick", "--only", "--out", "--model", "not measured"):
        assert option in text, option


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("benchmarks.suite", "run `make bench` in a checkout"),
        ("ctranslate2", "ctranslate2 is missing: pip install 'stele[bench]'"),
    ],
)
def test_what_is_missing_is_named_in_one_line(
    missing: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.suite")
    monkeypatch.setattr("sys.meta_path", [Absent("benchmarks.suite", missing), *sys.meta_path])
    done = stele("bench")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert sentence in line


class Absent:
    """A finder for which importing `name` fails as if `missing` were not installed."""

    def __init__(self, name: str, missing: str) -> None:
        self._name, self._missing = name, missing

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self._name:
            raise ModuleNotFoundError(f"No module named {self._missing!r}", name=self._missing)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "speed"], "no section speed; there are offline-base"),
        (["--model", "nowhere"], "nowhere is not a checkpoint folder"),
    ],
)
def test_options_that_mean_nothing_are_refused(arguments: list[str], sentence: str) -> None:
    done = stele("bench", *arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_a_section_that_fails_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def fails(bench: Bench, until: float) -> None:
        raise RuntimeError("the peer is not there")

    def works(bench: Bench, until: float) -> None:
        ran.append("works")

    sections = (Section("a", fails, 1, ("libretranslate",)), Section("b", works, 1))
    monkeypatch.setattr(suite, "SECTIONS", sections)
    monkeypatch.setattr(suite, "_prepare", lambda bench: bench.results.sections.update(seconds={}))
    assert suite.run(out=tmp_path) == 0
    assert ran == ["works"]
    last = capsys.readouterr().out
    assert "| not measured: the peer is not there |" in last
    assert '"libretranslate": "the peer is not there"' in (tmp_path / "results.json").read_text()
