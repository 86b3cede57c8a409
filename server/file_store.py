"""FileStore: translated files, kept in memory until they are fetched."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from server.errors import TooLarge

MAX_AGE_S = 1800.0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file under the name that it is to be saved as."""

    name: str
    media_type: str
    content: bytes
    kept_at_s: float


class FileStore:
    """Keeps the newest files, up to a number of bytes and for a time."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the limit of all contents together; 0 keeps nothing, not even what is empty."""
        self.max_bytes = max_bytes
        self._clock = clock
        self._files: dict[str, StoredFile] = {}  # oldest first
        self._bytes = 0

    def put(self, name: str, media_type: str, content: bytes) -> str:
        """Keep a file and return the key to it, which nobody can guess and which ends with `name`.

        The oldest ones make room.

        Raises:
            TooLarge: it alone is more than all files may be.
        """
        size = self._cost(name, content)
        if size > self.max_bytes:
            raise TooLarge(
                f"the translated file needs {size} bytes, above the limit of {self.max_bytes} "
                "for kept files; send it in parts"
            )
        self._drop_old()
        while self._bytes + size > self.max_bytes:
            self._drop(next(iter(self._files)))
        key = f"{uuid.uuid4()}.{name}"
        self._files[key] = StoredFile(name, media_type, content, self._clock())
        self._bytes += size
        return key

    def get(self, key: str) -> StoredFile | None:
        """Return the file that `put` gave this key for, as often as it is asked for."""
        self._drop_old()
        return self._files.get(key)

    def _drop_old(self) -> None:
        oldest_s = self._clock() - MAX_AGE_S
        old = takewhile(lambda kept: kept[1].kept_at_s <= oldest_s, self._files.items())
        for key, _ in list(old):
            self._drop(key)

    def _drop(self, key: str) -> None:
        file = self._files.pop(key)
        self._bytes -= self._cost(file.name, file.content)

    @staticmethod
    def _cost(name: str, content: bytes) -> int:
        return len(content) + len(name) + 512  # what else an entry takes, so that empty ones count

    def __repr__(self) -> str:
        return f"<FileStore {len(self._files)} files, {self._bytes} of {self.max_bytes} bytes>"
