"""`stele`: serve models over HTTP, or translate on the command line."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from server import __version__
from server.settings import Settings, unknown_variables, variable

# OpenMP's threads spin for milliseconds after an operator, on the core that HTTP needs. This many
# turns, a fraction of that, keep them awake between two operators of a step and not much longer.
_SPINS = "60000"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Serve encoder-decoder Transformers: translation, and any text to text.",
)


def main() -> None:
    """Run the command line."""
    app()


def _fail(message: str) -> typer.Exit:
    typer.echo(f"stele: {message}", err=True)
    return typer.Exit(2)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise _fail(str(error)) from error


def read_settings(**flags: Any) -> Settings:
    """Combine flags with the environment; a flag that is not given leaves the variable in force.

    Raises:
        typer.Exit: code 2, after one line per mistake on standard error.
    """
    if unknown := unknown_variables():
        known = ", ".join(variable(field) for field in Settings.model_fields)
        raise _fail(f"{unknown[0]} is not a setting; known are {known}")
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


def _help(field: str) -> str:
    return f"{Settings.model_fields[field].description} [{variable(field)}]"


Model = Annotated[list[str] | None, typer.Option(metavar="NAME_OR_DIR", help=_help("model"))]
Offline = Annotated[bool | None, typer.Option("--offline", help=_help("offline"))]
Place = Annotated[
    str, typer.Argument(metavar="NAME_OR_DIR", help="A checkpoint folder, or organisation/name.")
]
Revision = Annotated[
    str | None, typer.Option(help="A branch, tag, commit or refs/pr/N; main by default.")
]
Device = Annotated[str | None, typer.Option(help=_help("device"))]
Precision = Annotated[str | None, typer.Option(help=_help("precision"))]
Threads = Annotated[int | None, typer.Option(help=_help("threads"))]
Slots = Annotated[int | None, typer.Option(help=_help("slots"))]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help=_help("http_host"))] = None,
    port: Annotated[int | None, typer.Option(help=_help("http_port"))] = None,
    model: Model = None,
    offline: Offline = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    slots: Slots = None,
    source_tokens_per_tick: Annotated[
        int | None, typer.Option(help=_help("source_tokens_per_tick"))
    ] = None,
    latent_cache_bytes: Annotated[
        int | None, typer.Option(help=_help("latent_cache_bytes"))
    ] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help=_help("max_body_bytes"))] = None,
    header_timeout_s: Annotated[float | None, typer.Option(help=_help("header_timeout_s"))] = None,
    body_timeout_s: Annotated[float | None, typer.Option(help=_help("body_timeout_s"))] = None,
    max_beams: Annotated[int | None, typer.Option(help=_help("max_beams"))] = None,
    max_texts: Annotated[int | None, typer.Option(help=_help("max_texts"))] = None,
    max_characters: Annotated[int | None, typer.Option(help=_help("max_characters"))] = None,
    max_waiting_segments: Annotated[
        int | None, typer.Option(help=_help("max_waiting_segments"))
    ] = None,
    request_timeout_s: Annotated[
        float | None, typer.Option(help=_help("request_timeout_s"))
    ] = None,
    deepl_timeout_s: Annotated[float | None, typer.Option(help=_help("deepl_timeout_s"))] = None,
    drain_delay_s: Annotated[float | None, typer.Option(help=_help("drain_delay_s"))] = None,
    dialects: Annotated[str | None, typer.Option(help=_help("dialects"))] = None,
    cors_origin: Annotated[str | None, typer.Option(help=_help("cors_origin"))] = None,
    log_level: Annotated[str | None, typer.Option(help=_help("log_level"))] = None,
) -> None:
    """Serve one or several models over HTTP. API keys are read from STELE_API_KEYS only."""
    flags = locals()
    flags["http_host"], flags["http_port"] = flags.pop("host"), flags.pop("port")
    settings = read_settings(**flags)
    _log_to_stderr(settings.log_level)
    # The first process of a container ignores signals that it does not handle; until the server
    # handles them there is nothing to finish.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when PyTorch is imported
    # PyTorch takes a second to import: not for --help, nor before the settings are known good.
    from server.app import create_app
    from server.process import run

    raise typer.Exit(run(create_app(settings), settings))


@app.command()
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
    _log_to_stderr("error")
    from server.batch import translate_lines

    with _one_line_errors():
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


@app.command()
def models(
    model: Model = None,
    precision: Precision = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON array, for machines.")] = False,
) -> None:
    """Show what models can do: languages, limits, size. Nothing is fetched, no weights are read."""
    settings = read_settings(model=model, precision=precision)
    _log_to_stderr("error")
    from server.models_table import print_json, print_table, rows

    with _one_line_errors():
        found = rows(settings)
        (print_json if json else print_table)(found, sys.stdout)


@app.command()
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
    _log_to_stderr("info")
    from model import Reference, resolve

    with _one_line_errors():
        reference = Reference.parse(name)
        if reference.is_folder:
            raise ValueError(f"{name} is a folder already; there is nothing to fetch")
        folder = resolve(reference.place, revision=revision or reference.revision, refresh=True)
        typer.echo(folder)


@app.command("convert")
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
    _log_to_stderr("info")
    from model import Reference
    from model.convert import convert, verify

    with _one_line_errors():
        reference = Reference.parse(f"{model}@{revision}" if revision else model)
        convert(reference.locate(offline=settings.offline, pickled=True), out)
        try:
            verify(out)
        except ValueError as error:
            raise ValueError(f"{out} is written, but cannot be served: {error}") from error
        typer.echo(f"{out} is ready: stele serve --model {out}")


@app.command()
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
            raise _fail(
                "the benchmark is not part of the installed package: run `make bench` in a "
                "checkout of the repository"
            ) from error
        raise _fail(f"{error.name} is missing: pip install 'stele[bench]'") from error
    with _one_line_errors():
        code = run(quick=quick, only=only or [], out=out, model=model)
    raise typer.Exit(code)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for chatty in ("httpx", "httpx2"):  # a line for each request to the hub
        logging.getLogger(chatty).setLevel(logging.WARNING)
