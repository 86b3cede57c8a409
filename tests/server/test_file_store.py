"""Translated files are kept within bytes and time."""

import re

import pytest

from server.errors import TooLarge
from server.file_store import MAX_AGE_S, FileStore

OVERHEAD = 512 + len("a.txt")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_file_comes_back_as_often_as_it_is_asked_for_by_a_key_that_nobody_can_guess() -> None:
    store = FileStore(10_000)
    keys = [store.put("a.txt", "text/plain", b"one"), store.put("a.txt", "text/plain", b"two")]
    assert len(set(keys)) == 2
    for key, content in zip(keys, (b"one", b"two"), strict=True):
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.a\.txt", key)
        for _ in range(2):
            file = store.get(key)
            assert file is not None
            assert (file.name, file.media_type, file.content) == ("a.txt", "text/plain", content)
    assert store.get("a.txt") is None


def test_the_oldest_make_room_for_the_newest() -> None:
    store = FileStore(2 * (OVERHEAD + 100))
    first, second, third = (store.put("a.txt", "text/plain", b"x" * 100) for _ in range(3))
    assert [store.get(key) is not None for key in (first, second, third)] == [False, True, True]


def test_empty_files_count_too() -> None:
    store = FileStore(3 * OVERHEAD)
    keys = [store.put("a.txt", "text/plain", b"") for _ in range(100)]
    assert sum(store.get(key) is not None for key in keys) == 3


def test_a_file_above_the_limit_is_refused_and_drops_no_other() -> None:
    store = FileStore(OVERHEAD + 10)
    kept = store.put("a.txt", "text/plain", b"x" * 10)
    with pytest.raises(TooLarge, match=f"needs {OVERHEAD + 11} bytes, above the limit"):
        store.put("a.txt", "text/plain", b"x" * 11)
    assert store.get(kept) is not None


def test_a_file_is_forgotten_after_its_time() -> None:
    clock = Clock()
    store = FileStore(10_000, clock)
    old = store.put("a.txt", "text/plain", b"x")
    clock.now_s = MAX_AGE_S / 2
    young = store.put("a.txt", "text/plain", b"x")
    clock.now_s = MAX_AGE_S - 1
    assert store.get(old) is not None
    clock.now_s = MAX_AGE_S
    assert store.get(old) is None
    assert store.get(young) is not None
    assert "1 files" in repr(store)
