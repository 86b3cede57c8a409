"""Flags that commands share: settings as options, and mistakes as one line on standard error."""

import inspect
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from server.settings import Settings, unknown_variables, variable

MODELS, MACHINE = "Models", "Machine"  # the groups of options that several commands have


def fail(message: str, code: int = 2) -> typer.Exit:
    """Write one line to standard error; raise what is returned to leave with `code`."""
    typer.echo(f"stele: {message}", err=True)
    return typer.Exit(code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Leave with code 2 and one line where something was wrong, without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise fail(str(error)) from error


def read_settings(**flags: Any) -> Settings:
    """Combine flags with the environment; a flag that is not given leaves the variable in force.

    Raises:
        typer.Exit: code 2, after one line per mistake on standard error.
    """
    if unknown := unknown_variables():
        known = ", ".join(variable(field) for field in Settings.model_fields)
        raise fail(f"{unknown[0]} is not a setting; known are {known}")
    given = {name: value for name, value in flags.items() if value not in (None, [])}
    try:
        return Settings(**given)
    except ValidationError as error:
        for each in error.errors(include_input=False):
            field = str(each["loc"][0])
            flag = "--" + field.removeprefix("http_").replace("_", "-")
            where = flag if field in given else variable(field)
            typer.echo(f"stele: {where}: {each['msg']}", err=True)
        raise typer.Exit(2) from error


def setting(field: str, panel: str, *names: str, **more: Any) -> Any:
    """Return the option of a setting: its description, its variable and its default as help.

    Args:
        panel: the group of options it is shown in.
        names: how it is written, where the parameter's name does not say it.
    """
    info = Settings.model_fields[field]
    default = info.default
    default = ",".join(default) if isinstance(default, tuple) else default
    shown = "" if default in (None, False, "") else f"; default: {default}"
    return typer.Option(
        *names,
        help=f"{info.description} ({variable(field)}{shown})",
        rich_help_panel=panel,
        **more,
    )


def flowing(text: str | None) -> str:
    """Return a command's help with paragraphs as one line each, to be wrapped for the terminal.

    Paragraphs that begin with a backspace, as click has it, stay as they are.
    """
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(
        each if each.startswith("\b") else each.replace("\n", " ") for each in paragraphs
    )


def log_to_stderr(level: str) -> None:
    """Write the log to standard error from `level` on."""
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for chatty in ("httpx", "httpx2"):  # a line for each request to the hub
        logging.getLogger(chatty).setLevel(logging.WARNING)


Model = Annotated[list[str] | None, setting("model", MODELS, "--model", metavar="NAME_OR_DIR")]
Offline = Annotated[bool | None, setting("offline", MODELS, "--offline")]
Device = Annotated[str | None, setting("device", MACHINE)]
Precision = Annotated[str | None, setting("precision", MACHINE)]
Threads = Annotated[int | None, setting("threads", MACHINE)]
Slots = Annotated[int | None, setting("slots", MACHINE)]
