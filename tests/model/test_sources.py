"""SourceTable: places of sources, and when they are free again."""

import pytest

from model.sources import Held, SourceTable


def test_a_source_keeps_its_place_until_its_last_row_is_released() -> None:
    table = SourceTable(3)
    table.add("a")
    assert [table.bind(row, "a") for row in (2, 0)] == [0, 0]
    assert repr(table) == "2/3 rows, 1/3 sources"

    assert table.release(2) is None
    assert "a" in table
    assert table.release(0) == Held("a", 0)
    assert "a" not in table
    assert repr(table) == "0/3 rows, 0/3 sources"


def test_the_next_places_are_the_lowest_free_ones() -> None:
    table = SourceTable(4)
    for row, key in enumerate("abc"):
        table.add(key)
        table.bind(row, key)
    table.release(0)
    table.release(1)

    assert table.next_indices(2) == [0, 1]
    table.add("d")
    table.add("e")
    assert [table.bind(row, key) for row, key in enumerate("de")] == [0, 1]
    assert table.next_indices(2) == [3]  # all there are


def test_sources_that_no_row_reads_are_dropped_on_demand() -> None:
    table = SourceTable(2)
    table.add("read")
    table.bind(0, "read")
    table.add("unread")

    assert table.drop_unread() == [Held("unread", 1)]
    assert "read" in table
    assert table.next_indices(2) == [1]


def test_one_row_that_is_not_clean_leaves_its_source_so() -> None:
    table = SourceTable(1)
    table.add("a")
    table.bind(0, "a")
    table.bind(1, "a")

    table.release(0, is_clean=False)
    dropped = table.release(1)
    assert dropped is not None
    assert not dropped.is_clean


def test_more_sources_than_places_are_an_error() -> None:
    table = SourceTable(1)
    table.add("a")
    with pytest.raises(IndexError):
        table.add("b")
    assert "b" not in table
