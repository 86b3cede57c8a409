"""What is done is kept, whatever happens then; nothing is taken for done that is not."""

import os
from pathlib import Path

import pytest

from server.journal import Partial, Record, digest, fingerprint, replace


def partial(out: Path, key: str = "k") -> Partial:
    return Partial(out, key)


def test_what_was_done_is_there_again(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    with partial(out) as first:
        assert first.done == []
        first.add([("ä\n", ()), ("b", ("cut",))])
    with partial(out) as second:
        assert second.done == [("ä\n", []), ("b", ["cut"])]
        second.add([("c", ())])
    with partial(out) as third:
        assert [text for text, _ in third.done] == ["ä\n", "b", "c"]
    assert not out.exists()


@pytest.mark.parametrize(
    "torn",
    [
        b'["c", ',
        b'["c", []]',
        b"\0\0\0\n",
        b'{"a\n["d", []]\n',
        b'\0\0\0\0\0\0\0\0\0\n["d", []]\n',
        b'null\n["d", []]\n',
        b'{"c": 1, "d": 2}\n["d", []]\n',
        b'["c", [], []]\n["d", []]\n',
        b'[1, []]\n["d", []]\n',
        b'["c", "cut"]\n["d", []]\n',
    ],
)
def test_a_torn_end_is_done_again(tmp_path: Path, torn: bytes) -> None:
    out = tmp_path / "a.txt"
    with partial(out) as first:
        first.add([("a", ()), ("b", ())])
    with first.path.open("ab") as file:
        file.write(torn)
    with partial(out) as second:
        assert [text for text, _ in second.done] == ["a", "b"]
        second.add([("c", ())])
    with partial(out) as third:
        assert [text for text, _ in third.done] == ["a", "b", "c"]


def test_another_source_or_option_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    with partial(out) as first:
        first.add([("a", ())])
    with partial(out, "other") as second:
        assert second.done == []
    with partial(out) as third:
        assert third.done == []


def test_a_file_of_that_name_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt.partial").write_text("mine\n")
    with pytest.raises(ValueError, match=r"a\.txt\.partial is there already, and not ours"):
        partial(tmp_path / "a.txt")
    assert (tmp_path / "a.txt.partial").read_text() == "mine\n"


def test_an_output_appears_at_once_and_its_journal_goes(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    with partial(out) as one:
        one.finish("Größe\r\n", out)
    assert out.read_bytes() == "Größe\r\n".encode()
    assert list(tmp_path.iterdir()) == [out]
    replace(out, "new")
    assert list(tmp_path.iterdir()) == [out]


def test_a_record_knows_what_was_made_from_what_and_is_as_it_was(tmp_path: Path) -> None:
    out, path = tmp_path / "sub/a.txt", tmp_path / ".record"
    out.parent.mkdir()
    out.write_text("a")
    record = Record(path)
    assert not record.is_own(out)
    record.add(out, "k", "a")
    record = Record(path)
    assert record.is_done(out, "k")
    assert not record.is_done(out, "other")
    assert record.is_own(out)
    out.write_text("edited")
    assert not record.is_own(out)
    assert not record.is_done(out, "k")
    out.unlink()
    assert not record.is_done(out, "k")


def test_a_damaged_record_knows_what_is_whole_and_what_comes_later(tmp_path: Path) -> None:
    first, second, path = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / ".record"
    path.write_bytes(b'\xff\xfe\n{"a": 1}\n{"out": []}\nnull\n')
    first.write_text("a")
    second.write_text("b")
    Record(path).add(first, "k", "a")
    with path.open("ab") as file:
        file.write(b'{"torn')
    Record(path).add(second, "k", "b")
    assert Record(path).is_done(first, "k")
    assert Record(path).is_done(second, "k")


def test_an_output_that_was_about_to_be_replaced_is_known_as_it_was(tmp_path: Path) -> None:
    out, record = tmp_path / "a.txt", Record(tmp_path / ".record")
    out.write_text("old")
    record.add(out, "k", "old")
    record.add(out, "k2", "new")
    assert record.is_own(out)
    assert not record.is_done(out, "k2")


def test_two_do_not_write_one_output_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    with partial(out) as first:
        first.add([("a", ())])
        with pytest.raises(ValueError, match=r"a\.txt\.partial is being written by another stele"):
            partial(out)
        first.add([("b", ())])
    with partial(out) as second:
        assert [text for text, _ in second.done] == ["a", "b"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        replace(tmp_path / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_other_weights_of_the_same_name_and_size_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a")
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    weights.write_bytes(b"b")
    assert fingerprint(tmp_path) != before


def test_digests_tell_values_apart() -> None:
    assert digest("a", ["b"], {"x": 1, "y": None}) == digest("a", ["b"], {"y": None, "x": 1})
    assert len({digest("a", "b"), digest("ab"), digest(["a", "b"]), digest("a", "b", None)}) == 4
