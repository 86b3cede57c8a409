"""Which files `stele translate` means, and where their translations go."""

import os
from pathlib import Path

import pytest

from server.files import RECORD, Job, Place, plan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in: in/a.txt, in/sub/b.html, in/sub/c.srt, and what is none of ours."""
    for name in ("in/a.txt", "in/sub/b.html", "in/sub/c.srt", "in/d.png", "in/.hidden.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outs(jobs: list[Job]) -> dict[str, str]:
    return {str(job.source): str(job.out) for job in jobs}


def test_one_source_goes_to_standard_output_and_no_source_is_standard_input(folder: Path) -> None:
    assert plan(["in/a.txt"], Place(), None) == [Job(Path("in/a.txt"), None, "text")]
    assert plan(["-"], Place(), None) == [Job(None, None, "text")]
    assert plan(["-"], Place("out.html"), "html") == [Job(None, Path("out.html"), "html")]


def test_a_folder_keeps_its_structure_and_holds_only_what_can_be_read(folder: Path) -> None:
    jobs = plan(["in"], Place("out"), None)
    assert outs(jobs) == {
        "in/a.txt": "out/a.txt",
        "in/sub/b.html": "out/sub/b.html",
        "in/sub/c.srt": "out/sub/c.srt",
    }
    assert [job.format for job in jobs] == ["text", "html", "srt"]
    assert {job.record for job in jobs} == {Path("out") / RECORD}


def test_patterns_are_expanded_through_folders(folder: Path) -> None:
    assert outs(plan(["in/**/*.[hs]*"], Place(suffix=".de"), None)) == {
        "in/sub/b.html": "in/sub/b.de.html",
        "in/sub/c.srt": "in/sub/c.de.srt",
    }
    assert outs(plan(["*/a.txt"], Place("out"), None)) == {"in/a.txt": "out/in/a.txt"}


def test_named_files_keep_what_their_folders_do_not_have_in_common(folder: Path) -> None:
    named = ["in/a.txt", str(folder / "in/sub/b.html"), str(folder / "in/a.txt")]
    assert list(outs(plan(named, Place("out"), None)).values()) == ["out/a.txt", "out/sub/b.html"]
    assert outs(plan(["in/a.txt"], Place("out/"), None)) == {"in/a.txt": "out/a.txt"}
    assert outs(plan(["in/a.txt"], Place("in", "_de"), None)) == {"in/a.txt": "in/a_de.txt"}


def test_a_path_that_goes_up_leads_to_no_other_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "in/sub")
    assert outs(plan(["../a.txt", "b.html"], Place("out"), None)) == {
        "../a.txt": "out/a.txt",
        "b.html": "out/sub/b.html",
    }


def test_a_linked_file_is_a_file_and_a_linked_folder_is_read_once(folder: Path) -> None:
    Path("in/other.txt").symlink_to("a.txt")
    Path("in/again").symlink_to(".")
    wanted = {"in/a.txt": "out/a.txt", "in/other.txt": "out/other.txt"}
    assert outs(plan(["in/**/*.txt"], Place("out"), None)) == wanted
    assert outs(plan(["in", "in/a.txt"], Place("out"), None)).items() >= wanted.items()


def test_a_pipe_is_one_source(folder: Path) -> None:
    os.mkfifo("pipe")
    assert plan(["pipe"], Place(), "text") == [Job(Path("pipe"), None, "text")]


def test_a_name_that_ends_like_the_suffix_is_a_source_unless_its_own_is_there(folder: Path) -> None:
    Path("in/a.de.txt").write_text("x")
    Path("in/only.de.txt").write_text("x")
    jobs = plan(["in/*.txt"], Place(suffix=".de"), None)
    assert list(outs(jobs)) == ["in/a.txt", "in/only.de.txt"]


def test_what_an_earlier_run_wrote_is_no_source(folder: Path) -> None:
    for name in ("a.de.txt", "a.de.txt.partial", "out/a.txt"):
        path = folder / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    sources = [str(job.source) for job in plan(["in"], Place("in/out", ".de"), None)]
    assert sources == ["in/a.txt", "in/sub/b.html", "in/sub/c.srt"]
    assert outs(plan(["in/sub"], Place("."), None))["in/sub/b.html"] == "b.html"


@pytest.mark.parametrize(
    ("arguments", "place", "message"),
    [
        (["none.txt"], Place(), "none.txt does not exist"),
        (["*.none"], Place("out"), r"nothing to translate in \*\.none"),
        (["in"], Place(), "several files: say where .* --out DIR or --suffix .de"),
        (["in/a.txt", "in/sub/b.html"], Place(), "several files"),
        (["in/d.png"], Place(), "in/d.png: .png is not a supported format; .* --format text"),
        (["in"], Place("in/d.png"), "in/d.png is a file; --out takes a folder"),
        (["in"], Place("in"), "in/a.txt is a source; it is never overwritten"),
        (["in/a.txt"], Place("in/a.txt"), "in/a.txt is a source"),
        (["other", "in"], Place("out"), "other/a.txt and in/a.txt would both be out/a.txt"),
        (["-", "in/a.txt"], Place("out"), "translated alone"),
        (["-"], Place("in"), "standard input has no name"),
        (["-"], Place(suffix=".de"), "standard input has no name"),
        (["in"], Place(suffix="de/"), "--suffix must be something like .de"),
        (["in"], Place(suffix=""), "--suffix must be something like .de"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    folder: Path, arguments: list[str], place: Place, message: str
) -> None:
    (folder / "other").mkdir()
    (folder / "other/a.txt").write_text("x")
    with pytest.raises(ValueError, match=message):
        plan(arguments, place, None)
