"""Glossary files: a source term and its target on each line, parted by a tab or as CSV."""

import csv
from pathlib import Path

_HEADINGS = {("source", "target"), ("src", "tgt"), ("from", "to")}


def read_glossary(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the terms of a file, each with what stands for it in the target.

    Raises:
        ValueError, OSError: one line that names the file and the line.
    """
    lines = read_text(path).splitlines()
    has_tabs = any("\t" in line for line in lines)
    rows = (line.split("\t") for line in lines) if has_tabs else csv.reader(lines, strict=True)
    terms: dict[str, str] = {}
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            cells = [cell.strip() for cell in row]
            if any(cells):
                source, target = _term(cells, number)
                if terms.setdefault(source, target) != target:
                    raise ValueError(f"{source!r} has another target above")
    except csv.Error as error:  # in a row that was not read to its end
        raise ValueError(f"{path}, line {number + 1}: {error}; check its quotes") from error
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from error
    if not terms:
        raise ValueError(f"{path} holds no terms: a line is SOURCE<tab>TARGET or SOURCE,TARGET")
    return tuple(terms.items())


def _term(cells: list[str], number: int) -> tuple[str, str]:
    if len(cells) != 2:
        raise ValueError(f"{len(cells)} columns; a line is SOURCE<tab>TARGET or SOURCE,TARGET")
    source, target = cells
    if not source or not target:
        raise ValueError("a term is empty")
    if number == 1 and (source.lower(), target.lower()) in _HEADINGS:
        raise ValueError("this is a heading; take it out, all lines are terms")
    return source, target


def read_text(path: Path) -> str:
    """Return a file's text without a byte order mark.

    Raises:
        ValueError: it is not UTF-8; says where.
        OSError: it cannot be read.
    """
    return decoded(path.read_bytes(), str(path)).removeprefix("\ufeff")


def decoded(content: bytes, name: str) -> str:
    """Return UTF-8 as text, byte order mark and line ends as they are; raises ValueError."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name}, line {line}: not UTF-8; convert it first, "
            f"with `iconv -f ENCODING -t UTF-8` for example"
        ) from error
