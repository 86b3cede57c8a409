"""`stele translate`: what its command line says, and what its exit code means."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from server.files import STDIN, Job, Place, plan
from server.flags import (
    Device,
    Model,
    Offline,
    Precision,
    Slots,
    Threads,
    fail,
    log_to_stderr,
    one_line_errors,
    read_settings,
)
from server.glossary_file import read_glossary
from server.progress import Display
from server.settings import Settings
from server.text.documents import Format
from server.text.rules import TextRules

if TYPE_CHECKING:
    from server.file_translation import Outcome

WHAT, WHERE, HOW = "What is translated", "Where it goes", "How"
_INTERRUPTED = 130  # as a shell has it for Ctrl-C


def translate(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, and patterns such as 'docs/**/*.html' (quoted, or the shell "
            "expands them); - or none reads standard input."
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from", "-f", help="Source language, or auto: told by the text.", rich_help_panel=WHAT
        ),
    ] = "auto",
    target: Annotated[
        str, typer.Option("--to", "-t", help="Target language.", rich_help_panel=WHAT)
    ] = "de",
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text", help="Translate this instead of files; repeatable.", rich_help_panel=WHAT
        ),
    ] = None,
    format: Annotated[
        Literal["auto", Format],
        typer.Option(
            help="Of all files; auto tells by the extension: .txt .text .html .htm .xhtml .srt "
            ".vtt. In text every line is translated by itself.",
            rich_help_panel=WHAT,
        ),
    ] = "auto",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE_OR_DIR",
            help="A file for one source; a folder for several, whose structure is kept in it. By "
            "default one source goes to standard output.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Comes between name and extension: --suffix .de writes page.de.html beside "
            "page.html, or in --out.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Overwrite what is there; sources never are. Without it, only outputs that an "
            "earlier run has left in a folder are, if nobody has changed them since.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Tell failures only.", rich_help_panel=WHERE),
    ] = False,
    glossary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Terms and what they shall be in the target: on each line SOURCE<tab>TARGET, or "
            "SOURCE,TARGET as CSV.",
            rich_help_panel=HOW,
        ),
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TERM", help="A term that stays as it is; repeatable.", rich_help_panel=HOW
        ),
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Hypotheses searched together: more is slower, and often better. By default as "
            "the model says, else 1.",
            rich_help_panel=HOW,
        ),
    ] = None,
    model: Model = None,
    offline: Offline = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    slots: Slots = None,
) -> None:
    """Translate files, text or standard input; no server is needed.

    What is not language comes out as it was: markup, timings, blank lines, line ends. Interrupted
    work goes on where it was when the same command is given again; finished files are not
    translated twice.

    \b
    echo 'Wo ist der Bahnhof?' | stele translate --from de --to en
    stele translate film.srt --to de --out film.de.srt
    stele translate site/ --to de --out site-de/ --glossary terms.tsv
    stele translate 'docs/**/*.html' --to de --suffix .de --protect Stele

    Exit codes: 0 all is done, 1 some files failed (each is named with the reason), 2 nothing could
    be done (a mistake in the command, a model, a language), 130 interrupted.
    """
    settings = read_settings(
        model=model,
        offline=offline,
        device=device,
        precision=precision,
        threads=threads,
        slots=slots,
    )
    log_to_stderr("error")
    with one_line_errors():
        if text and (files or out or suffix):
            raise ValueError("--text goes to standard output: leave out files, --out and --suffix")
        if text and format in ("srt", "vtt"):
            raise ValueError(f"--text is text or html, not a file of format {format}")
        chosen: Format | None = None if format == "auto" else format
        if beams and beams > settings.slots:
            raise ValueError(f"--beams {beams} needs --slots {beams} or more")
        jobs = [] if text else plan(files or [STDIN], Place(out, suffix), chosen)
        terms = read_glossary(glossary) if glossary else ()
        rules = TextRules(
            markup="html" if chosen == "html" else None,
            glossary=terms,
            protected=tuple(protect or ()),
        )
        what = Wanted(tuple(text or ()), tuple(jobs), source, target, beams, rules, force)
        _verify_streams(what)
    shows_progress = not (what.writes_to_stdout and sys.stdout.isatty())
    display = Display(shows_progress=shows_progress, is_quiet=quiet)
    raise typer.Exit(_run(settings, what, display))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command line asks for, verified as far as it can be without a model."""

    texts: tuple[str, ...]
    jobs: tuple[Job, ...]
    source: str
    target: str
    beams: int | None
    rules: TextRules
    force: bool

    @property
    def writes_to_stdout(self) -> bool:
        """Whether a translation goes to standard output."""
        return bool(self.texts) or any(job.out is None for job in self.jobs)


def _verify_streams(wanted: Wanted) -> None:
    """Raise ValueError for a stream that is needed, and that whoever started us has closed."""
    if wanted.writes_to_stdout and sys.stdout is None:
        raise ValueError("standard output is closed")
    if sys.stdin is None and any(job.source is None for job in wanted.jobs):
        raise ValueError("standard input is closed")


def _run(settings: Settings, wanted: Wanted, display: Display) -> int:
    """Translate, say how it went, and return the exit code."""
    try:
        with display:
            outcome = asyncio.run(_outcome(settings, wanted, display))
    except KeyboardInterrupt:  # while it was not yet, or not any more, in the loop's hands
        _interrupted(wanted)
    except (ValueError, OSError) as error:
        raise fail(str(error)) from error
    if len(wanted.jobs) > 1:
        display.say(outcome.summary)
    for failure in outcome.failed:
        typer.echo(f"stele: {failure}", err=True)
    return 1 if outcome.failed else 0


async def _outcome(settings: Settings, wanted: Wanted, display: Display) -> "Outcome":
    # PyTorch takes a second to import: not for --help, nor for a command that makes no sense.
    from server.file_translation import Outcome, order_of, translate_files, translate_texts

    order = order_of(wanted.source, wanted.target, wanted.beams, wanted.rules)
    try:
        if not wanted.texts:
            return await translate_files(settings, wanted.jobs, order, display, force=wanted.force)
        await translate_texts(settings, wanted.texts, order, display)
        return Outcome()
    except asyncio.CancelledError:
        display.close()
        _interrupted(wanted)


def _interrupted(wanted: Wanted) -> NoReturn:
    """Say how to go on, and leave at once.

    A thread that loads a model, or reads a terminal, is not waited for.
    """
    goes_on = any(job.out for job in wanted.jobs)
    advice = "; the same command goes on where it was" if goes_on else ""
    typer.echo(f"stele: interrupted{advice}", err=True)
    os._exit(_INTERRUPTED)
