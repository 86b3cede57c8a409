"""Files: which ones a command means, and where the translation of each goes."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.text.documents import EXTENSIONS, Format, format_of

STDIN = "-"
RECORD = ".stele-outputs"  # in a folder of outputs
PARTIAL = ".partial"  # what is done of an output that is not finished


@dataclass(frozen=True, slots=True)
class Job:
    """One document to translate.

    Attributes:
        source: None is standard input.
        out: None is standard output.
        record: the file that says what outputs were made from; None for a single one.
    """

    source: Path | None
    out: Path | None
    format: Format
    record: Path | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return "standard input" if self.source is None else str(self.source)


@dataclass(frozen=True, slots=True)
class Place:
    """Where translations go: a file or a folder, and what comes between name and extension."""

    out: str | None = None
    suffix: str | None = None

    def of(self, source: Path, below: Path, is_several: bool) -> tuple[Path | None, Path | None]:
        """Return the output of a source that is called `below` in its folder, and the record."""
        name = f"{source.stem}{self.suffix or ''}{source.suffix}"
        if self.out is None:
            out = None if self.suffix is None else source.with_name(name)
            return out, None if out is None or not is_several else out.parent / RECORD
        if is_several or self.is_folder:
            return Path(self.out) / below.with_name(name), Path(self.out) / RECORD
        return Path(self.out), None

    @property
    def is_folder(self) -> bool:
        """Whether a folder was named, rather than a file."""
        return self.out is not None and (self.out.endswith(os.sep) or Path(self.out).is_dir())


def plan(arguments: Sequence[str], place: Place, format: Format | None) -> list[Job]:
    """Return what is to be done, in order; nothing is written, no content is read.

    Args:
        arguments: files, folders (all files in them that have a format of ours) and patterns.
        format: of all of them; None tells by the extension, and standard input is text.

    Raises:
        ValueError: one line that says what is wrong with the command.
    """
    if place.suffix is not None and (not place.suffix or os.sep in place.suffix):
        raise ValueError("--suffix must be something like .de, without a folder")
    if STDIN in arguments:
        return [_of_stdin(arguments, place, format)]
    named = [os.path.abspath(each) for each in arguments if _is_named(Path(each))]
    base = Path(os.path.commonpath(list(map(os.path.dirname, named)))) if named else Path()
    found = [each for argument in arguments for each in _found(argument, base, place, format)]
    is_several = len(arguments) > 1 or not _is_named(Path(arguments[0]))
    if is_several and place.out is None and place.suffix is None:
        raise ValueError(
            "several files: say where their translations go, with --out DIR or --suffix .de"
        )
    if is_several and place.out and _is_named(Path(place.out)):
        raise ValueError(f"{place.out} is a file; --out takes a folder for several translations")
    jobs = []
    for source, below in _distinct(found):
        out, record = place.of(source, below, is_several)
        jobs.append(Job(source, out, format or _format_of(source), record))
    _verify(jobs)
    return jobs


def _is_named(path: Path) -> bool:
    """Whether a path is that of one file; a pipe, as of the shell's <(...), is one, too."""
    return path.exists() and not path.is_dir()


def _distinct(found: Sequence[tuple[Path, Path]]) -> Iterable[tuple[Path, Path]]:
    """Leave out what was found before, by another argument or through a link to a folder.

    A link to a file is a file of its own.
    """
    kept: dict[Path, tuple[Path, Path]] = {}
    for source, below in found:
        place = source.parent.resolve() / source.name
        if place not in kept or len(below.parts) < len(kept[place][1].parts):
            kept[place] = source, below
    return kept.values()


def _of_stdin(arguments: Sequence[str], place: Place, format: Format | None) -> Job:
    if len(arguments) > 1:
        raise ValueError("standard input (-) is translated alone, not among files")
    if place.is_folder or place.suffix is not None:
        raise ValueError("standard input has no name: --out takes a file, --suffix nothing")
    return Job(None, Path(place.out) if place.out else None, format or "text")


def _format_of(source: Path) -> Format:
    try:
        return format_of(source.name)
    except ValueError as error:
        raise ValueError(f"{source}: {error}; --format text reads it as text") from error


def _found(
    argument: str, base: Path, place: Place, format: Format | None
) -> list[tuple[Path, Path]]:
    """Return the files an argument means, each with its name below the folder it was found in.

    Args:
        base: the folder that all files are in that are named themselves.
    """
    path = Path(argument)
    if path.is_dir():
        inside = [each for each in sorted(path.rglob("*")) if each.is_file()]
        usable = [each for each in inside if format or each.suffix.lower() in EXTENSIONS]
        return _sources(usable, path, place, argument)
    if path.exists():
        return [(path, Path(os.path.abspath(path)).relative_to(base))]
    if not glob.has_magic(argument):
        raise ValueError(f"{argument} does not exist")
    matches = [Path(each) for each in sorted(glob.glob(argument, recursive=True))]
    fixed = argument[: next(i for i, c in enumerate(argument) if c in "*?[")]
    folder = Path(fixed if fixed.endswith(os.sep) else os.path.dirname(fixed))
    return _sources([each for each in matches if each.is_file()], folder, place, argument)


def _sources(
    files: Sequence[Path], base: Path, place: Place, argument: str
) -> list[tuple[Path, Path]]:
    """Leave out what is hidden, and what an earlier run has written."""
    found = []
    for path in files:
        below = path.relative_to(base)
        is_hidden = any(part.startswith(".") for part in below.parts)
        if not (is_hidden or _is_output(path, base, place)):
            found.append((path, below))
    if not found:
        raise ValueError(f"there is nothing to translate in {argument}")
    return found


def _is_output(path: Path, base: Path, place: Place) -> bool:
    if path.suffix == PARTIAL:
        return True
    if place.suffix and path.stem.endswith(place.suffix):  # if what it would be made of is there
        return (path.parent / (path.stem.removesuffix(place.suffix) + path.suffix)).is_file()
    if place.out is None:
        return False
    out = Path(place.out).resolve()
    return base.resolve() in out.parents and out in path.resolve().parents


def _verify(jobs: Sequence[Job]) -> None:
    """Refuse outputs that are sources, and two sources for one output."""
    sources = {job.source.resolve() for job in jobs if job.source}
    taken: dict[Path, Job] = {}
    for job in jobs:
        if job.out is None:
            continue
        out = Path(os.path.realpath(job.out))
        if out in sources:
            raise ValueError(
                f"{job.out} is a source; it is never overwritten: choose another --out"
            )
        if out in taken:
            raise ValueError(f"{taken[out].name} and {job.name} would both be {job.out}")
        taken[out] = job
