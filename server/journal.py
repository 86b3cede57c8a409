"""Journals: what of an output is done, so that interrupted work goes on where it was."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from server.files import PARTIAL

Done = tuple[str, Sequence[str]]  # a text's translation and the warnings about it


def digest(*parts: object) -> str:
    """Return a hash of values that JSON has."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def replace(path: Path, content: str) -> None:
    """Write a file at once: whoever looks sees all of it or what was there before."""
    new = path.with_name(f"{path.name}.new{PARTIAL}")
    with new.open("wb") as file:
        file.write(content.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


class Partial:
    """The finished texts of an output that is not finished: a line of JSON for each.

    What was written before a crash is read again, but for a torn last line.
    """

    def __init__(self, out: Path, key: str) -> None:
        """Open the journal of `out`, or begin it where there is none of this `key`.

        Raises:
            ValueError: a file of its name is something else.
            OSError: it cannot be written.
        """
        self.path = out.with_name(out.name + PARTIAL)
        header = {"stele": "unfinished", "key": key}
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        found = _values(whole)
        if lines and not (found and isinstance(found[0], dict) and "stele" in found[0]):
            raise ValueError(f"{self.path} is there already, and not ours: move it away")
        is_same = bool(found) and found[0] == header
        self.done: list[Done] = (
            [(text, warnings) for text, warnings in found[1:]] if is_same else []
        )
        self._file: BinaryIO = self.path.open("r+b" if is_same else "wb")
        if is_same:
            self._file.seek(sum(map(len, whole[: len(found)])))
            self._file.truncate()
        else:
            self._write([header])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, and keep it for the next time."""
        self._file.close()

    def add(self, done: Iterable[Done]) -> None:
        """Keep texts, in order."""
        self._write([list(each) for each in done])

    def finish(self, content: str, out: Path) -> None:
        """Put the whole output in its place; the journal is not needed any more."""
        replace(out, content)
        self._file.close()
        self.path.unlink()

    def _write(self, values: Iterable[Any]) -> None:
        self._file.write(b"".join(json.dumps(value).encode() + b"\n" for value in values))
        self._file.flush()


def _values(lines: Sequence[bytes]) -> list[Any]:
    """Return what lines hold, up to the first that is damaged."""
    values = []
    for line in lines:
        try:
            values.append(json.loads(line))
        except ValueError:
            break
    return values


class Record:
    """What the outputs of a folder were made from, so that finished ones are not made again."""

    def __init__(self, path: Path) -> None:
        """Read the record; one that is damaged knows less."""
        self._path = path
        lines = path.read_bytes().splitlines() if path.exists() else []
        self._known = {value["out"]: value for value in _values(lines) if isinstance(value, dict)}

    def is_done(self, out: Path, key: str) -> bool:
        """Whether an output that is there was made from the same source with the same options."""
        known = self._known.get(self._name(out))
        return self.is_own(out) and known is not None and known["key"] == key

    def is_own(self, out: Path) -> bool:
        """Whether an output that is there is as it was written, so that nothing is lost with it."""
        known = self._known.get(self._name(out))
        return known is not None and out.exists() and known["is"] == _digest_of(out)

    def add(self, out: Path, key: str) -> None:
        """Note an output that was finished."""
        value = {"out": self._name(out), "key": key, "is": _digest_of(out)}
        self._known[value["out"]] = value
        with self._path.open("ab") as file:
            file.write(json.dumps(value).encode() + b"\n")

    def _name(self, out: Path) -> str:
        return os.path.relpath(out, self._path.parent)


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
