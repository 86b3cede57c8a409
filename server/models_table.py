"""What models can do, read from their configuration and tokenizer, as a table or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from model import BUNDLED, Reference, describe
from server.settings import Settings

_LISTED = 8  # languages in a cell


def rows(settings: Settings) -> list[dict[str, Any]]:
    """Describe the models that the settings name; nothing is fetched.

    Raises:
        ValueError: one of them is not here or cannot be served; names it.
    """
    found = []
    for text in settings.model or [str(BUNDLED)]:
        reference = Reference.parse(text)
        folder = reference.locate(offline=True)
        try:
            card = describe(folder, device=settings.device, precision=settings.precision)
        except ValueError as error:
            raise ValueError(f"{reference.name}: {error}") from error
        revision = None if reference.is_folder else folder.name
        card = replace(
            card,
            name=reference.name,
            source=reference.place,
            revision=revision,
        )
        found.append(asdict(card) | {"bytes": _size(folder), "folder": str(folder)})
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def print_json(found: Sequence[dict[str, Any]], out: TextIO) -> None:
    """Write one JSON array; sizes in bytes."""
    out.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def print_table(found: Sequence[dict[str, Any]], out: TextIO) -> None:
    """Write a table for people; wide enough for its content where `out` is no terminal."""
    console = Console(file=out, width=None if out.isatty() else 240)
    table = Table("model", "architecture", "parameters", "precision", "translates")
    for heading in ("max source", "max target", "on disk"):
        table.add_column(heading, justify="right")
    table.add_column("from")
    for row in found:
        revision = f"@{row['revision'][:12]}" if row["revision"] else ""
        table.add_row(
            row["name"],
            row["architecture"],
            f"{row['parameters'] / 10**6:.1f} M",
            row["precision"],
            directions(row["targets"]),
            str(row["max_source"]),
            str(row["max_target"]),
            f"{row['bytes'] / 10**6:.0f} MB",
            f"{row['source']}{revision}",
        )
    console.print(table)


def directions(targets: dict[str, tuple[str, ...]]) -> str:
    """Return the directions of a model in few words."""
    if not targets:
        return "nothing: /generate only"
    sources = sorted(targets)
    into = sorted({code for codes in targets.values() for code in codes})
    if set(sources) == set(into):
        return f"{_few(sources)} <-> each other" if len(into) > 2 else " <-> ".join(into)
    return f"{_few(sources)} -> {_few(into)}"


def _few(codes: Sequence[str]) -> str:
    if len(codes) <= _LISTED:
        return ", ".join(codes)
    return f"{', '.join(codes[:_LISTED])} and {len(codes) - _LISTED} more"
