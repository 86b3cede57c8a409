"""`stele`: serve models over HTTP, or translate on the command line."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from server import __version__
from server.flags import (
    MACHINE,
    Device,
    Model,
    Offline,
    Precision,
    Slots,
    Threads,
    fail,
    flowing,
    log_to_stderr,
    one_line_errors,
    read_settings,
    setting,
)
from server.translate_command import translate

# OpenMP's threads spin for milliseconds after an operator, on the core that HTTP needs. This many
# turns, a fraction of that, keep them awake between two operators of a step and not much longer.
_SPINS = "60000"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Serve encoder-decoder Transformers: translation, and any text to text.

\b
stele translate --text 'I am tired.' --to de
stele serve --model facebook/nllb-200-distilled-600M
stele models --model facebook/nllb-200-distilled-600M

`stele COMMAND --help` explains a command. Settings are flags or STELE_* variables: a flag goes \
before its variable, and a misspelt one is an error.""",
)


def main() -> None:
    """Run the command line."""
    app()


Place = Annotated[
    str, typer.Argument(metavar="NAME_OR_DIR", help="A checkpoint folder, or organisation/name.")
]
Revision = Annotated[
    str | None, typer.Option(help="A branch, tag, commit or refs/pr/N; main by default.")
]
NETWORK, LIMITS, OPERATION = "Network", "Limits", "Operation"


def _command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command whose help is its docstring."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(name, help=flowing(function.__doc__))(function)

    return add


_command("translate")(translate)


@_command("serve")
def serve(
    host: Annotated[str | None, setting("http_host", NETWORK)] = None,
    port: Annotated[int | None, setting("http_port", NETWORK)] = None,
    dialects: Annotated[str | None, setting("dialects", NETWORK)] = None,
    cors_origin: Annotated[str | None, setting("cors_origin", NETWORK)] = None,
    spec_title: Annotated[str | None, setting("spec_title", NETWORK)] = None,
    model: Model = None,
    offline: Offline = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    slots: Slots = None,
    source_tokens_per_tick: Annotated[
        int | None, setting("source_tokens_per_tick", MACHINE)
    ] = None,
    latent_cache_bytes: Annotated[int | None, setting("latent_cache_bytes", MACHINE)] = None,
    max_body_bytes: Annotated[int | None, setting("max_body_bytes", LIMITS)] = None,
    header_timeout_s: Annotated[float | None, setting("header_timeout_s", LIMITS)] = None,
    body_timeout_s: Annotated[float | None, setting("body_timeout_s", LIMITS)] = None,
    request_timeout_s: Annotated[float | None, setting("request_timeout_s", LIMITS)] = None,
    deepl_timeout_s: Annotated[float | None, setting("deepl_timeout_s", LIMITS)] = None,
    max_beams: Annotated[int | None, setting("max_beams", LIMITS)] = None,
    max_texts: Annotated[int | None, setting("max_texts", LIMITS)] = None,
    max_characters: Annotated[int | None, setting("max_characters", LIMITS)] = None,
    max_file_store_bytes: Annotated[int | None, setting("max_file_store_bytes", LIMITS)] = None,
    max_waiting_segments: Annotated[int | None, setting("max_waiting_segments", LIMITS)] = None,
    drain_delay_s: Annotated[float | None, setting("drain_delay_s", OPERATION)] = None,
    log_level: Annotated[str | None, setting("log_level", OPERATION)] = None,
) -> None:
    """Serve one or several models over HTTP.

    \b
    stele serve
    stele serve --model Helsinki-NLP/opus-mt-en-fr --model s=facebook/bart-large-cnn
    stele serve --host 0.0.0.0 --port 80 --slots 128
    curl -s localhost:8000/translate -d q='I am tired.' -d source=en -d target=de

    The bundled model translates between English and German. API keys are read from STELE_API_KEYS
    only, because command lines are visible to other users. /docs describes every path; SIGTERM
    finishes what was accepted. Exit codes: 0 after a signal, 1 no model can be served, 2 a mistake
    in the settings, 3 it cannot listen.
    """
    flags = locals()
    flags["http_host"], flags["http_port"] = flags.pop("host"), flags.pop("port")
    settings = read_settings(**flags)
    log_to_stderr(settings.log_level)
    # The first process of a container ignores signals that it does not handle; until the server
    # handles them there is nothing to finish.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when PyTorch is imported
    # PyTorch takes a second to import: not for --help, nor before the settings are known good.
    from server.app import create_app
    from server.process import run

    raise typer.Exit(run(create_app(settings), settings))


@_command("models")
def models(
    model: Model = None,
    precision: Precision = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON array, for machines.")] = False,
) -> None:
    """Show what models can do: languages, limits, size.

    Nothing is fetched, no weights are read: a repository of the hub has to be in the cache.

    \b
    stele models
    stele models --model facebook/nllb-200-distilled-600M
    stele models --json
    """
    settings = read_settings(model=model, precision=precision)
    log_to_stderr("error")
    from server.models_table import print_json, print_text, rows

    with one_line_errors():
        found = rows(settings)
        (print_json if json else print_text)(found, sys.stdout)


@_command("download")
def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME[@REVISION]", help="organisation/name on the hub.")
    ],
    revision: Revision = None,
) -> None:
    """Fetch a model into the hub's cache, for images and machines that are offline later.

    Only safetensors, configuration and tokenizer are fetched; what is there already is kept. It
    prints the folder. HF_HOME or HF_HUB_CACHE says where the cache is, HF_TOKEN who you are.
    """
    read_settings()
    log_to_stderr("info")
    from model import Reference, resolve

    with one_line_errors():
        reference = Reference.parse(name)
        if reference.is_folder:
            raise ValueError(f"{name} is a folder already; there is nothing to fetch")
        folder = resolve(reference.place, revision=revision or reference.revision, refresh=True)
        typer.echo(folder)


@_command("convert")
def convert_(
    model: Place,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is new or empty.")],
    revision: Revision = None,
    offline: Offline = None,
) -> None:
    """Make safetensors of a model that has only pickled weights (pytorch_model.bin).

    The server never reads pickled files, which can execute code. This command reads them as plain
    tensors, refuses everything else in them, and writes a folder for `stele serve --model`. A
    revision that has safetensors is copied as it is.
    """
    settings = read_settings(offline=offline)
    log_to_stderr("info")
    from model import Reference
    from model.convert import convert, verify

    with one_line_errors():
        reference = Reference.parse(f"{model}@{revision}" if revision else model)
        convert(reference.locate(offline=settings.offline, pickled=True), out)
        try:
            verify(out)
        except ValueError as error:
            raise ValueError(f"{out} is written, but cannot be served: {error}") from error
        typer.echo(f"{out} is ready: stele serve --model {out}")


@_command("bench")
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Few turns and short windows: to see that it works.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="SECTION", help="Measure only this; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; named by date by default.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Instead of the bundled one: a Marian checkpoint, en to de.")
    ] = None,
) -> None:
    """Measure Stele beside its peers on this machine, in turns, and print goals and ratios.

    It takes a quarter of an hour. Peers that are not installed are reported as not measured.
    """
    folder = str(Path(__file__).parent.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # the suite is in the repository, beside this package
    try:
        from benchmarks.suite import run
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "benchmarks":
            raise fail(
                "the benchmark is not part of the installed package: run `make bench` in a "
                "checkout of the repository"
            ) from error
        raise fail(f"{error.name} is missing: pip install 'stele[bench]'") from error
    with one_line_errors():
        code = run(quick=quick, only=only or [], out=out, model=model)
    raise typer.Exit(code)


@_command("version")
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
