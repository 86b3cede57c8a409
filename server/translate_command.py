"""`stele translate`: what the command line says, verified."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from server.flags import (
    Device,
    Model,
    Offline,
    Precision,
    Slots,
    Threads,
    log_to_stderr,
    one_line_errors,
    read_settings,
)


def translate(
    files: Annotated[
        list[str] | None, typer.Argument(help="Files to translate; - or none reads standard input.")
    ] = None,
    source: Annotated[str, typer.Option("--from", "-f", help="Source language, or auto.")] = "auto",
    target: Annotated[str, typer.Option("--to", "-t", help="Target language.")] = "de",
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Translate this instead of files; repeatable."),
    ] = None,
    model: Model = None,
    offline: Offline = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    slots: Slots = None,
) -> None:
    """Translate files, text or standard input to standard output; no server is needed."""
    settings = read_settings(
        model=model,
        offline=offline,
        device=device,
        precision=precision,
        threads=threads,
        slots=slots,
    )
    log_to_stderr("error")
    from server.batch import translate_lines

    with one_line_errors():
        lines = text if text else _read_lines(files or ["-"])
        try:
            translate_lines(settings, lines, source, target, sys.stdout)
        except BrokenPipeError:  # whoever reads has seen enough
            os._exit(0)


def _read_lines(files: list[str]) -> list[str]:
    lines: list[str] = []
    for name in files:
        content = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        lines += content.removesuffix("\n").split("\n") if content else []
    return lines
