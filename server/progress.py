"""Progress of a translation on a terminal, and messages beside it."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Display:
    """A bar on standard error where that is a terminal; messages everywhere."""

    def __init__(self, *, shows_progress: bool, is_quiet: bool) -> None:
        """Show nothing yet.

        Args:
            shows_progress: false where the translation itself goes to the same terminal.
            is_quiet: whether only failures are told.
        """
        self._console = Console(stderr=True, soft_wrap=True, emoji=False, highlight=False)
        self._is_quiet = is_quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[counts]}"),
            console=self._console,
            transient=True,
            disable=is_quiet or not (shows_progress and self._console.is_terminal),
        )
        self._task = self._progress.add_task("starting", total=None, counts="")
        self._sizes: dict[Path | None, int] = {}
        self._files = self._files_done = self._texts = 0
        self._began_at = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def loading(self) -> None:
        """Say that models are being loaded, or fetched."""
        self._progress.update(self._task, description="loading")

    def begin(self, sources: Sequence[Path | None]) -> None:
        """Begin to count; a source's share of the bar is its size, which is known beforehand."""
        self._sizes = {source: _size(source) for source in sources}
        self._files = len(sources)
        self._began_at = time.monotonic()
        total = sum(self._sizes.values()) or None
        self._progress.update(self._task, description="translating", total=total)

    def advance(self, source: Path | None, characters: int, texts: int) -> None:
        """Count texts of a source that are done."""
        share = min(characters, self._sizes.get(source, 0))
        if source in self._sizes:
            self._sizes[source] -= share
        self._texts += texts
        self._progress.update(self._task, advance=share, counts=self._counts())

    def file_done(self, source: Path | None) -> None:
        """Count a file, whether it went well or not."""
        self._files_done += 1
        self._progress.update(self._task, advance=self._sizes.pop(source, 0), counts=self._counts())

    def say(self, message: str) -> None:
        """Write a line to standard error, unless it shall be quiet."""
        if not self._is_quiet:
            self._console.print(f"stele: {message}", markup=False)

    def _counts(self) -> str:
        seconds = max(time.monotonic() - self._began_at, 1e-3)
        return (
            f"{self._files_done}/{self._files} files, {self._texts} texts, "
            f"{self._texts / seconds:.0f}/s"
        )


def _size(source: Path | None) -> int:
    try:
        return source.stat().st_size if source else 0
    except OSError:  # gone since: its own turn will tell
        return 0
