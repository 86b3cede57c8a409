"""What models can do, read from their configuration and tokenizer, for people or as JSON."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from model import BUNDLED, Reference, describe
from server.settings import Settings

_LISTED = 8  # languages of one model; JSON has all of them
_WIDTH = 80


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


def print_text(found: Sequence[dict[str, Any]], out: TextIO) -> None:
    """Write a few lines about each model, for people; no wider than 80 columns but for paths."""
    out.write("\n".join(map(_described, found)))


def _described(row: dict[str, Any]) -> str:
    revision = f"@{row['revision'][:12]}" if row["revision"] else ""
    size = f"{row['parameters'] / 10**6:.1f} M parameters, {row['precision']}"
    lines = {
        "is": f"{row['architecture']}, {size}, {row['bytes'] / 10**6:.0f} MB on disk",
        "translates": directions(row["targets"]),
        "limits": f"{row['max_source']} source tokens, {row['max_target']} target tokens",
        "from": f"{row['source']}{revision}",
    }
    described = f"{row['name']}\n"
    for name, text in lines.items():
        wrapped = textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=f"  {name:<12}",
            subsequent_indent=" " * 14,
            break_long_words=False,
            break_on_hyphens=False,
        )
        described += "\n".join(wrapped) + "\n"
    return described


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
