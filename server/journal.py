"""Journals: what of an output is done, so that interrupted work goes on where it was."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, Self

from server.files import PARTIAL

_BEGINNING = 2**20  # bytes; other weights differ there, and gigabytes would take seconds

Done = tuple[str, Sequence[str]]  # a text's translation and the warnings about it


def digest(*parts: object) -> str:
    """Return a hash of values that JSON has."""
    return _hash(json.dumps(parts, sort_keys=True).encode())


def fingerprint(folder: Path) -> str:
    """Return a hash by which one model's files are told from another's: sizes and beginnings."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return digest([(path.name, path.stat().st_size, _hash(_beginning(path))) for path in files])


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BEGINNING)


def replace(path: Path, content: str) -> None:
    """Write a file at once: whoever looks sees all of it or what was there before."""
    new = path.with_name(path.name + PARTIAL * 2)  # no source of ours, so no output, is called so
    try:
        with new.open("wb") as file:
            file.write(content.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


class Partial:
    """The finished texts of an output that is not finished: a line of JSON for each.

    What was written before a crash is read again, but for a torn last line.
    """

    def __init__(self, out: Path, key: str) -> None:
        """Open the journal of `out`, or begin it where there is none of this `key`.

        Raises:
            ValueError: a file of its name is something else, or somebody writes it now.
            OSError: it cannot be written.
        """
        self.path = out.with_name(out.name + PARTIAL)
        self._file: BinaryIO = self.path.open("a+b")
        try:
            self.done = self._begun({"stele": "unfinished", "key": key})
        except (ValueError, OSError):
            self._file.close()
            raise

    def _begun(self, header: dict[str, str]) -> list[Done]:
        """Return what is done, and leave nothing else in the file behind the header."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{self.path} is being written by another stele") from error
        self._file.seek(0)
        lines = self._file.readlines()
        whole = [line for line in lines if line.endswith(b"\n")]
        found = list(_values(whole))
        if lines and not (found and isinstance(found[0], dict) and "stele" in found[0]):
            raise ValueError(f"{self.path} is there already, and not ours: move it away")
        is_same = bool(found) and found[0] == header
        done = list(takewhile(_is_done, found[1:])) if is_same else []
        self._file.truncate(sum(map(len, whole[: len(done) + is_same])))
        if not is_same:
            self._write([header])
        return [(text, warnings) for text, warnings in done]

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
        self.path.unlink(missing_ok=True)

    def _write(self, values: Iterable[Any]) -> None:
        self._file.write(b"".join(json.dumps(value).encode() + b"\n" for value in values))
        self._file.flush()


def _values(lines: Sequence[bytes]) -> Iterator[Any]:
    """Yield what lines hold; null for one that is damaged."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            yield None


def _is_done(value: Any) -> bool:
    """Whether a line holds a text's translation and its warnings."""
    match value:
        case [str(), [*warnings]]:
            return all(isinstance(warning, str) for warning in warnings)
    return False


class Record:
    """What the outputs of a folder were made from, so that finished ones are not made again."""

    def __init__(self, path: Path) -> None:
        """Read the record; one that is damaged knows less."""
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        self._is_torn = content != b"" and not content.endswith(b"\n")
        self._keys: dict[tuple[str, str], str] = {}  # of an output's name and what was in it
        for value in _values(content.splitlines()):
            match value:
                case {"out": str(name), "is": str(found), "key": str(key)}:
                    self._keys[name, found] = key

    def is_done(self, out: Path, key: str) -> bool:
        """Whether an output that is there was made from the same source with the same options."""
        return out.exists() and self._keys.get(self._found(out)) == key

    def is_own(self, out: Path) -> bool:
        """Whether an output that is there is as it was written, so that nothing is lost with it."""
        return out.exists() and self._found(out) in self._keys

    def add(self, out: Path, key: str, content: str) -> None:
        """Note what is about to be put into an output: it is known from its first moment on."""
        name, found = self._name(out), _hash(content.encode("utf-8"))
        self._keys[name, found] = key
        line = json.dumps({"out": name, "key": key, "is": found}).encode() + b"\n"
        with self._path.open("ab") as file:
            file.write(b"\n" + line if self._is_torn else line)
        self._is_torn = False

    def _found(self, out: Path) -> tuple[str, str]:
        return self._name(out), _hash(out.read_bytes())

    def _name(self, out: Path) -> str:
        return os.path.relpath(out, self._path.parent)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
