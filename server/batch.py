"""Translation of many lines without HTTP: the server's own Translator, fed from a list."""

import asyncio
from collections.abc import Sequence
from typing import TextIO

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import Progress

from server import __version__
from server.app import load_into
from server.decoding_fields import DecodingFields
from server.errors import ServiceError
from server.metrics import Metrics
from server.preparation import Wishes
from server.routing import prepare
from server.serving import Serving
from server.settings import Settings

_CHUNK = 256  # lines in one submission: enough to fill the slots, little enough to show progress
_WARM_UP_S, _POLL_S = 60.0, 0.005


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
    serving = Serving(settings, Metrics(CollectorRegistry(), __version__))
    console = Console(stderr=True)
    try:
        await load_into(serving)
        await _warm_up(serving)
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("translating", total=len(lines))
            for start in range(0, len(lines), _CHUNK):
                chunk = lines[start : start + _CHUNK]
                fields = DecodingFields()
                translation = await prepare(
                    serving, chunk, source, target, fields, Wishes(), timeout_s=3600
                )
                async with translation:
                    results = await translation.collect()
                out.writelines(f"{result.text}\n" for result in results)
                out.flush()
                progress.update(task, advance=len(chunk))
    finally:
        for translator in serving.translators.values():
            await asyncio.to_thread(translator.engine.stop)


async def _warm_up(serving: Serving) -> None:
    """Wait until every engine has decoded its first token."""
    for _ in range(int(_WARM_UP_S / _POLL_S)):
        if serving.status == "ready":
            return
        await asyncio.sleep(_POLL_S)
    raise ValueError(f"a model fails on its first token: {serving.states}; the log says why")
