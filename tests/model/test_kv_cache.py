import random

import pytest
import torch
from torch import Tensor

from model.kv_cache import KVCache, round_up
from tests.model.networks import tiny_config

ROWS = 4


def kv_cache() -> KVCache:
    return KVCache(tiny_config(), ROWS, 40, 40, torch.float32, torch.device("cpu"))


def pairs(length: int, value: float) -> list[tuple[Tensor, Tensor]]:
    layer = torch.full((2, length, 16), value)
    return [(layer, -layer)] * 2


def one_step(cache: KVCache, rows: list[int], position: int, value: float = 1.0) -> list[Tensor]:
    """Write one position in both layers; returns all that the step read."""
    memory = cache.step(torch.tensor(rows), torch.full((len(rows),), position))
    new = torch.full((len(rows), 2, 1, 16), value)
    reads = [memory.extend(layer, new, new) for layer in range(2)]
    reads += [memory.source(layer) for layer in range(2)]
    return [tensor for read in reads for tensor in read[:2]]


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_rounding_up(count: int, expected: int) -> None:
    assert round_up(count, 8) == expected


def test_each_row_reads_its_own_source_and_position() -> None:
    cache = kv_cache()
    cache.add_source("a", pairs(3, 1.0))
    cache.add_source("b", pairs(35, 2.0))
    cache.bind(3, "a")
    cache.bind(1, "b")

    memory = cache.step(torch.tensor([1, 3]), torch.tensor([2, 0]))
    written = torch.randn(2, 2, 1, 16, generator=torch.Generator().manual_seed(0))
    keys, _, bias = memory.extend(0, written, -written)
    source_keys, source_values, source_bias = memory.source(1)

    assert torch.equal(keys[0, :, 2], written[0, :, 0])
    assert torch.equal(keys[1, :, 0], written[1, :, 0])
    assert bias.isfinite().sum(3).flatten().tolist() == [3, 1]
    assert source_keys.shape[2] == 64
    assert source_keys[0, 0, 0, 0] == 2.0
    assert source_values[1, 0, 0, 0] == -1.0
    assert source_bias.isfinite().sum(3).flatten().tolist() == [35, 3]


def test_equal_sources_are_shared_until_their_last_row_leaves() -> None:
    cache = kv_cache()
    cache.add_source("a", pairs(3, 1.0))
    cache.bind(0, "a")
    cache.bind(2, "a")
    assert repr(cache) == "<KVCache 2/4 rows, 1/4 sources>"

    cache.release(0)
    assert cache.holds("a")
    cache.release(2)

    assert not cache.holds("a")
    assert repr(cache) == "<KVCache 0/4 rows, 0/4 sources>"


def test_a_source_that_nobody_reads_can_be_dropped() -> None:
    cache = kv_cache()
    cache.add_source("read", pairs(3, 1.0))
    cache.bind(0, "read")
    cache.add_source("unread", pairs(3, 1.0))

    cache.drop_unread()

    assert (cache.holds("read"), cache.holds("unread")) == (True, False)


def test_no_capacity_is_lost_in_thousands_of_comings_and_goings() -> None:
    cache = kv_cache()
    rng = random.Random(0)
    bound: dict[int, int] = {}
    for _ in range(4000):
        row = rng.randrange(ROWS)
        if row in bound:
            del bound[row]
            cache.release(row, is_clean=rng.random() < 0.9)
        else:
            bound[row] = rng.randrange(6)
            if not cache.holds(bound[row]):
                cache.add_source(bound[row], pairs(rng.randint(1, 40), 1.0))
            cache.bind(row, bound[row])
        sources = len(set(bound.values()))
        assert repr(cache) == f"<KVCache {len(bound)}/4 rows, {sources}/4 sources>"

    for row in bound:
        cache.release(row)
    for row in range(ROWS):
        cache.add_source(row, pairs(1, 1.0))
        cache.bind(row, row)
    assert repr(cache) == "<KVCache 4/4 rows, 4/4 sources>"


def test_what_is_not_clean_reaches_no_later_user_of_the_row_or_the_source() -> None:
    cache = kv_cache()
    cache.add_source("bad", pairs(30, float("nan")))
    for row in range(ROWS):
        cache.bind(row, "bad")
    for position in range(5):
        one_step(cache, list(range(ROWS)), position, float("nan"))

    for row in range(ROWS):
        cache.release(row, is_clean=False)
    for row in range(ROWS):
        cache.add_source(row, pairs(2, 1.0))
        cache.bind(row, row)

    assert all(read.isfinite().all() for read in one_step(cache, list(range(ROWS)), 0))


def test_one_unclean_reader_is_enough_to_wipe_a_shared_source() -> None:
    cache = kv_cache()
    cache.add_source("bad", pairs(30, float("nan")))
    cache.bind(0, "bad")
    cache.bind(1, "bad")

    cache.release(0, is_clean=False)
    cache.release(1)
    cache.add_source("good", pairs(2, 1.0))
    cache.bind(0, "good")

    assert all(read.isfinite().all() for read in one_step(cache, [0], 0))


def test_a_dropped_source_that_is_not_finite_reaches_no_later_user() -> None:
    cache = kv_cache()
    cache.add_source("bad", pairs(30, float("nan")))

    cache.drop_unread()
    cache.add_source("good", pairs(2, 1.0))
    cache.bind(0, "good")

    assert all(read.isfinite().all() for read in one_step(cache, [0], 0))


def test_a_reordering_that_raises_leaves_every_row_as_it_was() -> None:
    cache = kv_cache()
    one_step(cache, [0, 1], 0, value=1.0)
    one_step(cache, [1], 0, value=2.0)
    keys = cache.row_keys.clone()
    cache.row_values = cache.row_values[:, :1]

    with pytest.raises(IndexError):
        cache.reorder(torch.tensor([0]), torch.tensor([1]), 1)

    assert torch.equal(cache.row_keys, keys)


def test_a_source_that_cannot_be_written_takes_no_place() -> None:
    cache = kv_cache()
    for _ in range(2 * ROWS):
        with pytest.raises(RuntimeError):
            cache.add_source("too long", pairs(65, 1.0))

    for row in range(ROWS):
        cache.add_source(row, pairs(3, 1.0))
        cache.bind(row, row)


def test_rows_and_sources_that_lie_together_are_read_without_copying() -> None:
    cache = kv_cache()
    for row, name in enumerate("abcd"):
        cache.add_source(name, pairs(3, float(row)))
        cache.bind(row, name)
    for row in (3, 0):  # what is free again is taken from the beginning
        cache.release(row)
    cache.add_source("e", pairs(3, 9.0))
    cache.bind(0, "e")

    def is_copied(rows: list[int]) -> list[bool]:
        pools = (cache.row_keys, cache.row_values, cache.source_keys, cache.source_values)
        reads = one_step(cache, rows, 1)
        kinds = [reads[0], reads[1], reads[4], reads[5]]  # of the first layer
        return [
            read.untyped_storage().data_ptr() != pool.untyped_storage().data_ptr()
            for read, pool in zip(kinds, pools, strict=True)
        ]

    assert is_copied([0, 1, 2]) == [False] * 4
    assert is_copied([0, 2]) == [True] * 4


def test_padding_rows_are_neither_written_nor_read() -> None:
    cache = kv_cache()
    cache.add_source("a", pairs(3, 1.0))
    cache.bind(1, "a")
    memory = cache.step(torch.tensor([1]), torch.tensor([0]))

    keys, values, bias = memory.extend(0, *[torch.ones(8, 2, 1, 16)] * 2)

    assert (len(keys), len(values), len(bias)) == (1, 1, 1)
    assert cache.row_keys.count_nonzero() == 2 * 16
