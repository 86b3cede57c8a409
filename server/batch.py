"""Translation of many lines without HTTP: the server's own Translator, fed from a list."""

import asyncio
from collections.abc import Sequence
from typing import TextIO

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import Progress

from server import __version__
from server.app import build_translator, load_detector, load_model
from server.decoding_fields import DecodingFields
from server.errors import ServiceError
from server.metrics import Metrics
from server.settings import Settings
from server.translator import Wishes

_CHUNK = 256  # lines in one submission: enough to fill the slots, little enough to show progress


def translate_lines(
    settings: Settings, lines: Sequence[str], source: str, target: str, out: TextIO
) -> None:
    """Write the translation of each line to `out`, in order; progress shows on a terminal.

    Raises:
        ValueError: what cannot be translated, in one line.
    """
    try:
        asyncio.run(_translate_lines(settings, lines, source, target, out))
    except ServiceError as error:
        raise ValueError(str(error)) from error


async def _translate_lines(
    settings: Settings, lines: Sequence[str], source: str, target: str, out: TextIO
) -> None:
    longest = max(map(len, lines), default=1)
    settings = settings.model_copy(update={"max_texts": _CHUNK, "max_characters": longest})
    model = load_model(settings)
    metrics = Metrics(CollectorRegistry(), __version__)
    translator = build_translator(model, load_detector(model), settings, metrics)
    translator.engine.start()
    console = Console(stderr=True)
    try:
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("translating", total=len(lines))
            for start in range(0, len(lines), _CHUNK):
                chunk = lines[start : start + _CHUNK]
                fields = DecodingFields()
                reading = await translator.translate(
                    chunk, source, target, fields, Wishes(), timeout_s=3600
                )
                async with reading:
                    results = await reading.collect()
                out.writelines(f"{result.text}\n" for result in results)
                out.flush()
                progress.update(task, advance=len(chunk))
    finally:
        await asyncio.to_thread(translator.engine.stop)
