"""Turns on a device: whoever asked first is next."""

import threading
from collections import deque
from types import TracebackType


class DeviceLock:
    """A lock handed over in order of arrival.

    With threading.Lock, a thread that releases and asks again at once wins again, so that one busy
    engine would keep the others of its device from ever stepping.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # guards the two below; held for moments only
        self._is_held = False
        self._queue: deque[threading.Lock] = deque()  # one locked lock for each thread that waits

    @property
    def waiting(self) -> int:
        """How many threads wait for their turn."""
        return len(self._queue)

    def __enter__(self) -> None:
        """Wait for the turn."""
        with self._mutex:
            if not self._is_held:
                self._is_held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._queue.append(turn)
        turn.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the turn to the thread that has waited longest."""
        with self._mutex:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._is_held = False

    def __repr__(self) -> str:
        return f"<DeviceLock {'held' if self._is_held else 'free'}, {self.waiting} waiting>"
