"""`stele translate` with what the text core does: tags, positions, glossaries, protected terms.

The model is the bundled one; what it words is not judged, what must survive is.
"""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import server.batch
from model import Model
from server.app import load_into
from server.cli import app
from server.serving import Serving

PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>The station</title><style>p { color: red }</style></head>
<body><p class="a &amp; b">I am <b>very</b> tired &amp; cold.</p>
<p translate="no">Do not touch this.</p><!-- a comment -->
<ul><li>Is it raining?<li><a href="/x?a=1&amp;b=2">Read more</a></ul></body></html>
"""


@pytest.fixture(autouse=True)
def loads_quickly(bundled: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The model that the session has loaded, and a folder to be in."""

    async def load(serving: Serving) -> None:
        await load_into(serving, [bundled])

    monkeypatch.setattr(server.batch, "load_into", load)
    monkeypatch.chdir(tmp_path)


def to_german(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["translate", "--from", "en", "--to", "de", *arguments])


def tags(text: str) -> list[str]:
    return re.findall(r"<[^<>]*>", text)


def test_a_page_keeps_its_tags_attributes_and_what_is_not_to_be_translated() -> None:
    Path("page.html").write_text(PAGE)
    done = to_german("page.html")
    assert (done.exit_code, done.stderr) == (0, "")
    assert sorted(tags(done.stdout)) == sorted(tags(PAGE))
    for kept in ("p { color: red }", "Do not touch this.", "<!-- a comment -->", "&amp; "):
        assert kept in done.stdout, kept
    assert "Regnet es?" in done.stdout
    assert "tired" not in done.stdout


def test_a_long_page_is_translated_in_pieces() -> None:
    body = "".join(f"<p id={n}>Is it <i>raining</i>?</p>\n" for n in range(400))
    Path("page.html").write_text(f"<html><body>{body}</body></html>")
    done = to_german("page.html", "--out", "out.html")
    assert (done.exit_code, done.stderr) == (0, "")
    written = Path("out.html").read_text()
    assert sorted(tags(written)) == sorted(tags(Path("page.html").read_text()))
    assert "raining" not in written


def test_subtitles_keep_styles_positions_and_every_character_that_is_no_tag() -> None:
    cue = "1\n00:00:01,000 --> 00:00:02,000\n{\\an8}<i>Is it raining?</i>\n\n"
    cue += "2\n00:00:03,000 --> 00:00:04,000\nI am tired & cold.\n"
    Path("film.srt").write_text(cue)
    done = to_german("film.srt")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.split("\n")[2] == "{\\an8}<i>Regnet es?</i>"
    assert "&amp;" not in done.stdout


def test_a_glossary_and_protected_terms_are_honoured() -> None:
    Path("terms.tsv").write_text("station\tHaltestelle\n")
    Path("a.txt").write_text("Where is the station?\nStele is a server.\n")
    done = to_german("a.txt", "--glossary", "terms.tsv", "--protect", "Stele")
    assert done.exit_code == 0
    first, second, _ = done.stdout.split("\n")
    assert first.count("Haltestelle") == 1
    assert second.count("Stele") == 1
