"""`stele translate`: documents come back whole, work goes on where it was, failures are named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import server.batch
from model import BUNDLED, Model
from server.app import load_into
from server.batch import Batch, Order
from server.cli import app
from server.files import RECORD
from server.journal import Partial
from server.progress import Display
from server.results import Result as Translated
from server.serving import Serving

ROOT = Path(__file__).parents[2]
SRT = (
    "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\nI do not know\r\nwhat you mean.\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000\r\n- Is it raining?\r\n- It is cold & wet.\r\n\r\n"
)


@pytest.fixture(autouse=True)
def loads_quickly(bundled: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that the session has loaded, in place of reading it once more."""

    async def load(serving: Serving) -> None:
        await load_into(serving, None if serving.settings.model else [bundled])

    monkeypatch.setattr(server.batch, "load_into", load)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are handed to the model."""
    texts: list[str] = []
    translated = Batch.translated

    def counted(
        self: Batch, these: Sequence[str], document: str | None, order: Order
    ) -> AsyncIterator[list[Translated]]:
        texts.extend(these)
        return translated(self, these, document, order)

    monkeypatch.setattr(Batch, "translated", counted)
    return texts


def stele(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["translate", *arguments], input=stdin, env={"COLUMNS": "300"})


def to_german(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return stele("--from", "en", "--to", "de", *arguments, stdin=stdin)


def refused(*arguments: str, code: int = 2) -> str:
    done = to_german(*arguments)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("stele: ")
    return line


def test_standard_input_is_translated_line_by_line() -> None:
    done = to_german(stdin="I am tired.\n\n  Is it raining?\r\n42")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout_bytes.decode() == "Ich bin müde.\n\n  Regnet es?\r\n42\n"
    assert to_german("-", stdin="").stdout == ""


def test_texts_are_translated_each_with_a_line_end() -> None:
    assert to_german("--text", "I am tired.", "--text", "5").stdout == "Ich bin müde.\n5\n"


def test_languages_are_told_line_by_line_where_lines_tell() -> None:
    stdin = "Where is the station, and when does the next train leave?\nIch bin heute sehr müde.\n"
    done = stele("--to", "de", stdin=stdin)
    assert "Bahnhof" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[1] == "Ich bin heute sehr müde."


def test_subtitles_come_back_with_numbers_timings_and_line_ends(folder: Path) -> None:
    Path("film.srt").write_bytes(SRT.encode())
    done = to_german("film.srt")
    assert (done.exit_code, done.stderr) == (0, "")
    written = done.stdout_bytes.decode().split("\r\n")
    said = {2, 3, 7, 8}
    assert [line for number, line in enumerate(written) if number not in said] == [
        line for number, line in enumerate(SRT.split("\r\n")) if number not in said
    ]
    assert [bool(written[number]) for number in said] == [True] * 4
    assert written[7] == "- Regnet es?"


def test_a_folder_is_translated_and_what_is_finished_is_not_done_again(
    folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in/sub").mkdir(parents=True)
    Path("in/a.txt").write_text("I am tired.\n")
    Path("in/sub/b.txt").write_text("Is it raining?\n")
    first = to_german("in", "--out", "out")
    assert (first.exit_code, first.stderr) == (0, "stele: 2 translated\n")
    assert Path("out/a.txt").read_text() == "Ich bin müde.\n"
    assert Path("out/sub/b.txt").read_text() == "Regnet es?\n"
    assert {path.name for path in Path("out").rglob("*")} == {"a.txt", "sub", "b.txt", RECORD}

    asked.clear()
    with monkeypatch.context() as patch:
        patch.delattr(server.batch, "load_into")  # not even a model is loaded
        assert to_german("in", "--out", "out").stderr == "stele: 0 translated, 2 done before\n"
    Path("in/a.txt").write_text("I am very tired.\n")
    assert to_german("in", "--out", "out").stderr == "stele: 1 translated, 1 done before\n"
    assert asked == ["I am very tired."]
    assert to_german("in", "--out", "out", "--force", "-q").stderr == ""
    assert len(asked) == 3
    assert to_german("in", "--out", "out", "--beams", "2").stderr == "stele: 2 translated\n"


def test_an_output_that_somebody_changed_is_not_overwritten(folder: Path) -> None:
    Path("in").mkdir()
    Path("in/a.txt").write_text("I am tired.")
    to_german("in/", "--suffix", ".de")
    assert Path("in/a.de.txt").read_text() == "Ich bin müde."
    Path("in/a.txt").write_text("Is it raining?")
    Path("in/a.de.txt").write_text("Ich bin so müde.")
    done = to_german("in/", "--suffix", ".de")
    assert done.exit_code == 1
    assert done.stderr == ("stele: in/a.txt: in/a.de.txt is there already; --force overwrites it\n")
    assert to_german("in/", "--suffix", ".de", "--force").exit_code == 0
    assert Path("in/a.de.txt").read_text() == "Regnet es?"
    assert "b.txt is there already" in refused("in/a.txt", "--out", _file("b.txt"), code=1)


def _file(name: str, content: str | bytes = "x") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def test_what_fails_is_named_and_the_others_are_finished(folder: Path) -> None:
    Path("in").mkdir()
    _file("in/a.txt", "I am tired.")
    _file("in/b.txt", b"a\n\xe4\n")
    _file("in/c.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\na <00:01.500>b\n")
    done = to_german("in/a.txt", "in/b.txt", "in/c.vtt", "--out", "out")
    assert done.exit_code == 1
    assert Path("out/a.txt").read_text() == "Ich bin müde."
    summary, *failures = done.stderr.splitlines()
    assert summary == "stele: 1 translated, 2 failed"
    assert sorted(failures) == [
        "stele: in/b.txt, line 2: not UTF-8; convert it first, "
        "with `iconv -f ENCODING -t UTF-8` for example",
        "stele: in/c.vtt: line 4: times and classes within a cue cannot be kept; take them out",
    ]
    assert {path.name for path in Path("out").iterdir()} == {"a.txt", RECORD}


def test_what_was_done_of_a_file_is_not_done_again(
    folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _file("a.txt", "".join(f"It is {number}.\n" for number in range(300)))

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "finish", full)
        assert "a.txt: no space left" in refused("a.txt", "--out", "b.txt", code=1)
    assert not Path("b.txt").exists()
    partial = Path("b.txt.partial")
    header, *lines = partial.read_text().splitlines(keepends=True)
    whole = [json.loads(line)[0] for line in lines]
    assert (len(whole), len(asked)) == (300, 300)
    lines[0] = json.dumps(["Kept.", ["segment 0 was cut"]]) + "\n"
    partial.write_text("".join([header, *lines[:200], '["torn', ""]))

    asked.clear()
    done = to_german("a.txt", "--out", "b.txt")
    assert done.stderr == "stele: a.txt:1: segment 0 was cut\n"
    assert len(asked) == 100
    assert Path("b.txt").read_text().splitlines() == ["Kept.", *whole[1:]]
    assert not partial.exists()


def test_interrupted_work_ends_in_one_line_that_says_how_to_go_on(folder: Path) -> None:
    _file("a.txt", "".join(f"It is {number} already.\n" for number in range(9000)))
    command = [sys.executable, "-m", "server", "translate", "a.txt", "--out", "b.txt"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--from", "en"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores it, and so would what that starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        waiting, partial = threading.Event(), Path("b.txt.partial")
        while not (partial.exists() and partial.read_bytes().count(b"\n") > 1):
            assert running.poll() is None
            waiting.wait(0.01)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert errors == "stele: interrupted; the same command goes on where it was\n"
    assert running.returncode == 130
    assert partial.exists()
    assert not Path("b.txt").exists()


def test_an_interruption_does_not_wait_for_what_somebody_may_type(folder: Path) -> None:
    told = (
        "import sys; import server.file_translation as it; from server.cli import main; "
        "read = it._content; say = lambda: print('reading', file=sys.stderr, flush=True); "
        "it._content = lambda job: say() or read(job); sys.argv[1:] = ['translate']; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", told],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        assert running.stdin
        assert running.stderr
        assert running.stderr.readline() == "reading\n"
        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(timeout=30) == 130
        finally:
            running.kill()
        assert running.stderr.read() == "stele: interrupted\n"


@pytest.mark.parametrize(("stream", "name"), [(0, "input"), (1, "output")])
def test_a_stream_that_is_closed_is_named(folder: Path, stream: int, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "server", "translate"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.close(stream),
    )
    assert (done.returncode, done.stderr) == (2, f"stele: standard {name} is closed\n")


def test_texts_are_read_in_the_format_that_is_named(folder: Path) -> None:
    text = '<p translate="no">It is raining.</p>'
    assert to_german("--text", text, "--format", "html").stdout == f"{text}\n"
    assert "It is" not in to_german("--text", text).stdout
    assert "--text is text or html" in refused("--text", text, "--format", "srt")


def test_what_another_model_of_the_same_name_has_made_is_made_again(folder: Path) -> None:
    _file("a.txt", "I am tired.\n")
    shutil.copytree(BUNDLED, "model")
    command = ["a.txt", "--out", "out/", "--model", "model"]
    assert to_german(*command).exit_code == 0
    record = Path("out", RECORD)
    assert to_german(*command).exit_code == 0
    assert len(record.read_bytes().splitlines()) == 1
    Path("model/another").write_text("file")
    assert to_german(*command).exit_code == 0
    assert len(record.read_bytes().splitlines()) == 2


def test_an_output_that_is_no_file_is_left_alone(folder: Path) -> None:
    _file("a.txt", "I am tired.\n")
    os.mkfifo("pipe")  # or a device, which root would replace by a file for everyone
    line = refused("a.txt", "--out", "pipe", "--force", code=1)
    assert line == "stele: a.txt: pipe is there already, and no file"
    assert Path("pipe").is_fifo()


def test_a_file_that_is_gone_takes_no_other_down(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in").mkdir()
    for name in ("in/a.txt", "in/b.txt"):
        _file(name, "I am tired.\n")
    monkeypatch.setattr(Display, "loading", lambda _: Path("in/a.txt").unlink())
    done = to_german("in", "--out", "out")
    assert done.exit_code == 1
    summary, failure = done.stderr.splitlines()
    assert summary == "stele: 1 translated, 1 failed"
    assert "in/a.txt" in failure


def test_a_mistake_is_one_line(folder: Path) -> None:
    _file("a.txt", "I am tired.")
    assert refused("none.txt") == "stele: none.txt does not exist"
    assert "config.json is missing" in refused("a.txt", "--model", str(folder))
    assert "not a folder, nor a hub name" in refused("a.txt", "--model", "/none")
    assert "leave out files, --out and --suffix" in refused("a.txt", "--text", "a")
    glossary = _file("terms.tsv", "a\tb\nc\n")
    assert refused("a.txt", "--glossary", glossary).startswith(
        "stele: terms.tsv, line 2: 1 columns"
    )
    many = _file("many.tsv", "".join(f"{number}\tx\n" for number in range(1001)))
    assert refused("a.txt", "--glossary", many).startswith("stele: 1001 glossary entries")
    assert "No such file" in refused("a.txt", "--glossary", "none.tsv")
    assert "--beams 65 needs --slots 65 or more" in refused("a.txt", "--beams", "65")


@pytest.mark.parametrize("what", [["--text", "a"], ["a.txt"]])
def test_a_language_that_is_not_there_is_refused_with_those_that_are(
    folder: Path, what: list[str]
) -> None:
    _file("a.txt", "I am tired.")
    line = "stele: xx is not supported; the loaded languages are: de, en"
    assert refused(*what, "--to", "xx") == line
    assert refused(*what, "--from", "xx") == line
    assert refused(*what, "--from", "auto", "--to", "xx") == line


def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    Path("folder.txt").mkdir()
    _file("folder.txt/.hidden.txt")
    assert "nothing to translate in folder.txt" in refused("folder.txt")
    Path("loop.txt").symlink_to("loop.txt")
    assert refused("loop.txt", code=2).endswith("loop.txt does not exist")


def test_progress_is_seen_on_a_terminal_and_nowhere_else(folder: Path) -> None:
    _file("a.txt", "I am tired.\nIs it raining?\n")
    arguments = ["translate", "a.txt", "--from", "en", "--out", "b.txt", "--force"]
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "100", "TERM": "xterm"}
    shown = CliRunner().invoke(app, arguments, env=terminal).stderr
    assert "translating" in shown
    assert "1/1 files, 2 texts" in shown
    assert CliRunner().invoke(app, [*arguments, "--quiet"], env=terminal).stderr == ""
    assert CliRunner().invoke(app, arguments).stderr == ""
