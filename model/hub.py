"""Where a checkpoint's files come from: a folder, or a repository of the hub kept in its cache.

huggingface_hub is imported only when a repository is asked for.
"""

import errno
import logging
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.hub_files import PICKLED, SERVED, has_pickled_weights, is_complete

logger = logging.getLogger(__name__)

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_ALIASED = re.compile(r"([\w.:-]+)=(.+)")
_LOG_PERIOD_S = 5.0


class HubError(ValueError):
    """A checkpoint that cannot be had; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Reference:
    """How a user names a model: `[ALIAS=]FOLDER_OR_REPOSITORY[@REVISION]`."""

    place: str
    alias: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read `text`; what exists as a folder is one, whatever characters it has.

        Raises:
            HubError: it is neither a folder nor written like a repository.
        """
        if text and Path(text).is_dir():
            return cls(text)
        alias, rest = None, text
        if match := _ALIASED.fullmatch(text):
            alias, rest = match[1], match[2]
        if rest and Path(rest).is_dir():
            return cls(rest, alias)
        place, _, revision = rest.partition("@")
        if place and Path(place).is_dir():
            raise HubError(f"{place} is a folder, which has no revision {revision}")
        if not _REPOSITORY.fullmatch(place):
            raise HubError(
                f"{place or repr(text)} is not a folder, nor a hub name such as organisation/name"
            )
        if ".." in revision.split("/"):
            raise HubError(f"{revision} is not a revision: a branch, a tag, a commit or refs/pr/N")
        return cls(place, alias, revision or None)

    @property
    def is_folder(self) -> bool:
        """Whether it is on this machine rather than a repository."""
        return Path(self.place).is_dir()

    @property
    def name(self) -> str:
        """What clients call the model: the alias, the repository, or the folder's own name."""
        return self.alias or (Path(self.place).resolve().name if self.is_folder else self.place)

    def locate(self, *, offline: bool = False, pickled: bool = False) -> Path:
        """Return the folder of the files, fetched if need be; raises HubError."""
        if self.is_folder:
            return Path(self.place)
        return resolve(self.place, revision=self.revision, offline=offline, pickled=pickled)

    def __str__(self) -> str:
        return self.place + (f"@{self.revision}" if self.revision else "")


def resolve(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    refresh: bool = False,
    pickled: bool = False,
    cache: Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """Return the folder with a repository's files at one commit, the folder's name.

    A complete snapshot in the cache is used as it is, without any request; only what is missing is
    fetched, and what was interrupted is resumed.

    Args:
        revision: a branch, tag, commit or `refs/pr/N`; main by default.
        offline: never touch the network (so does HF_HUB_OFFLINE).
        refresh: ask the hub even if the cache has the revision.
        pickled: take pytorch_model.bin where the repository has no safetensors, to convert it.
        cache: instead of HF_HUB_CACHE.
        endpoint: instead of HF_ENDPOINT.

    Raises:
        HubError: one line that says what is wrong and what to do.
    """
    from huggingface_hub import constants

    cache, endpoint = cache or Path(constants.HF_HUB_CACHE), endpoint or constants.ENDPOINT
    wanted = f"{name}@{revision}" if revision else name
    cached = _cached(name, revision, cache, pickled=pickled)
    offline = offline or bool(constants.HF_HUB_OFFLINE)
    if cached is not None and (offline or not refresh):
        logger.info("%s is in the cache at commit %s", wanted, cached.name)
        return cached
    if offline:
        raise _not_cached(name, revision, cache, wanted)
    try:
        folder = _fetch(name, revision, cache, endpoint, pickled=pickled)
    except HubError:
        raise
    except Exception as error:  # of the library, of its HTTP client, of the disk: all in one line
        raise HubError(_explanation(error, name, revision, cache, endpoint)) from error
    logger.info("%s is at commit %s", wanted, folder.name)
    return folder


def _cached(name: str, revision: str | None, cache: Path, *, pickled: bool) -> Path | None:
    """Return the snapshot in the cache if nothing of it is missing."""
    patterns = [SERVED, [*SERVED, *PICKLED]] if pickled else [SERVED]
    for each in patterns:
        folder = _snapshot(name, revision, cache, each)
        if folder is not None and is_complete(folder, pickled=pickled):
            return folder
    return None


def _snapshot(name: str, revision: str | None, cache: Path, patterns: Sequence[str]) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"],
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder)


def _not_cached(name: str, revision: str | None, cache: Path, wanted: str) -> HubError:
    folder = _snapshot(name, revision, cache, PICKLED)
    if folder is not None and has_pickled_weights({path.name for path in folder.iterdir()}):
        return _pickled(name, wanted)
    return HubError(
        f"{wanted} is not complete in {cache} and the network must not be used; "
        f"`stele download {wanted}` fetches it"
    )


def _pickled(name: str, wanted: str) -> HubError:
    return HubError(
        f"{wanted} has no safetensors, only pickled weights, which can execute code when they are "
        f"read: `stele convert {wanted} OUT` makes safetensors of them, or name a revision that "
        f"has some, such as {name}@refs/pr/N"
    )


def _fetch(name: str, revision: str | None, cache: Path, endpoint: str, *, pickled: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    wanted = f"{name}@{revision}" if revision else name
    info = HfApi(endpoint=endpoint).model_info(name, revision=revision)
    files = {sibling.rfilename for sibling in info.siblings or []}
    patterns = list(SERVED)
    if not any(file.endswith(".safetensors") and "/" not in file for file in files):
        if not has_pickled_weights(files):
            raise HubError(f"{wanted} has no weights that are read here: no model.safetensors")
        if not pickled:
            raise _pickled(name, wanted)
        patterns += PICKLED
    logger.info("fetching %s, commit %s", wanted, info.sha)
    folder = Path(
        snapshot_download(
            name,
            revision=revision,
            cache_dir=cache,
            endpoint=endpoint,
            allow_patterns=patterns,
            ignore_patterns=["*/*"],
            tqdm_class=None if sys.stderr.isatty() else _log_bar(),
        )
    )
    if not is_complete(folder, pickled=pickled):
        raise HubError(f"{wanted} is not a checkpoint: config.json, weights or tokenizer is absent")
    return folder


def _log_bar() -> Any:
    """Return a progress bar that writes a log line now and then, for where there is no terminal."""
    from huggingface_hub.utils.tqdm import tqdm

    class LogBar(tqdm):
        """Counts as tqdm does; shows itself as log lines."""

        _next_at = time.monotonic() + _LOG_PERIOD_S  # of all bars together

        def __init__(self, *positional: Any, **named: Any) -> None:
            # Each update may show itself: the period below is what limits them.
            named |= {"disable": False, "leave": False, "mininterval": 0, "miniters": 1}
            super().__init__(*positional, **named)  # type: ignore[no-untyped-call]

        def display(self, *_: Any, **__: Any) -> None:
            now = time.monotonic()
            if self.unit == "B" and self.total and self.n and now >= LogBar._next_at:
                LogBar._next_at = now + _LOG_PERIOD_S
                logger.info("fetched %d of %d MB", self.n // 10**6, self.total // 10**6)

        def clear(self, *_: Any, **__: Any) -> None:
            """There is no line to wipe."""

    return LogBar


def _explanation(
    error: Exception, name: str, revision: str | None, cache: Path, endpoint: str
) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    first = next(iter(str(error).strip().splitlines()), "")[:300] or type(error).__name__
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return (
            f"no space left in {cache} for {name}; what was fetched is kept and resumed: free "
            "some, or set HF_HUB_CACHE to a folder on a larger disk"
        )
    if isinstance(error, GatedRepoError):
        return (
            f"{name} is gated: accept its terms at {endpoint}/{name} and set HF_TOKEN to a token "
            "of that account"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{name} is neither a folder nor a repository of {endpoint}; "
            "if it is private, set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {revision or 'main'}"
    if isinstance(error, HfHubHTTPError):
        return f"{endpoint} did not give {name}: {first}"
    if isinstance(error, OSError) and error.filename:
        return f"cannot keep {name} in {cache}: {error.strerror}: {error.filename}"
    return f"cannot fetch {name} from {endpoint}: {first}"
