"""What is planned on the host: buckets, batches, and what a step is told of its rows."""

import numpy as np
import pytest
import torch

from model import CaptureSettings, DecodingOptions
from model.captured.buckets import bucket_of, buckets
from model.captured.device import Host
from model.captured.draw import uniform
from model.captured.encoder import batches
from model.captured.memory import RECORD, Memory
from model.captured.sources import _chunks
from model.captured.staging import Staging
from model.captured.weights import gather
from model.decoding import rows
from tests.model.networks import tiny_network


@pytest.mark.parametrize(
    ("slots", "smallest", "expected"),
    [
        (64, 8, (8, 16, 32, 64)),
        (256, 2, (2, 4, 8, 16, 32, 64, 128, 256)),
        (48, 8, (8, 16, 32, 48)),
        (65, 64, (64, 65)),
        (64, 64, (64,)),
        (5, 8, (8,)),
        (64, 1000, (64,)),
        (5, 1000, (8,)),
        (1, 1, (1,)),
    ],
)
def test_buckets_double_up_to_the_slots(
    slots: int, smallest: int, expected: tuple[int, ...]
) -> None:
    found = buckets(slots, smallest)
    assert found == expected
    for count in range(1, slots + 1):
        chosen = bucket_of(count, found)
        assert chosen >= count
        assert not [bucket for bucket in found if count <= bucket < chosen]


def test_impossible_buckets_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="buckets of 0 rows"):
        buckets(4, 0)
    with pytest.raises(ValueError, match="9 rows; at most 8"):
        bucket_of(9, (4, 8))
    for name, value in (("bucket_min", 0), ("late", -1), ("max_beams", 1), ("encoder_tokens", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least {value + 1}"):
            CaptureSettings(**{name: value})  # type: ignore[arg-type]


def test_sources_of_like_length_are_encoded_together_within_the_bound() -> None:
    lengths = [5, 30, 8, 1, 17, 24, 9]
    found = batches(lengths, 48)
    assert sorted(place for batch in found for place in batch) == list(range(7))
    assert [[lengths[place] for place in batch] for batch in found] == [
        [30],
        [24, 17],
        [9, 8, 5],
        [1],
    ]
    assert batches(lengths, 1) == [[1], [5], [4], [6], [2], [0], [3]]
    assert batches([], 10) == []


def test_latents_are_projected_in_their_order_within_the_bound() -> None:
    lengths = [5, 30, 8, 1, 17]
    assert [lengths[some] for some in _chunks(lengths, 32)] == [[5], [30], [8, 1, 17]]
    assert [lengths[some] for some in _chunks(lengths, 1)] == [[5], [30], [8], [1], [17]]


def test_numbers_that_decide_draws_are_the_hosts_bit_for_bit() -> None:
    seeds = [0, 1, 7, 2**63 - 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15]
    for position in (0, 1, 511, 10**6):
        bits = torch.from_numpy(np.array(seeds, dtype=np.uint64).view(np.int64))
        found = uniform(bits, torch.full((len(seeds),), position))
        assert found.tolist() == [rows.uniform(seed, position) for seed in seeds]


class Told:
    """A memory of eight rows and five slots, and what it is told."""

    def __init__(self) -> None:
        self.memory = Memory(gather(tiny_network(), 40), 5, 8, 20, 40, 3, 4, torch.device("cpu"))
        self.staging = Staging(self.memory, Host(), 5)

    def say(self, slots: list[int], bucket: int = 4) -> None:
        count = len(slots)
        self.staging.rows(slots, [11] * count, [3] * count, [9] * count, bucket)
        self.staging.send(bucket)
        self.memory.take(bucket)


def test_a_step_is_told_all_of_its_rows_in_one_copy_and_padding_names_the_dummy() -> None:
    told, seed = Told(), 2**64 - 3
    options = DecodingOptions(
        max_new_tokens=9,
        min_new_tokens=2,
        temperature=0.5,
        top_k=7,
        top_p=0.25,
        seed=seed,
        target_prefix=(4, 6),
        forced_eos=0,
    )
    told.staging.bind(2, options, 1)
    told.staging.bind(4, DecodingOptions(max_new_tokens=9), 3)
    told.say([4, 2])

    memory, slots = told.memory, told.memory.slots
    assert memory.row_slot.tolist() == [4, 2, 5, 5, 5, 5, 5, 5]
    assert slots.token[[4, 2]].tolist() == [11, 11]
    assert slots.position.tolist() == [0, 0, 3, 0, 3, 0]
    assert slots.max_position[[4, 2]].tolist() == [9, 9]
    assert slots.is_active.tolist() == [0, 0, 1, 0, 1, 0]
    assert slots.minimum[[4, 2]].tolist() == [0, 4]
    assert memory.prefix[[4, 2]].tolist() == [0, 2]
    assert memory.source_of_slot[[4, 2]].tolist() == [3, 1]
    assert memory.seed[2].item() == seed - 2**64
    assert [memory.temperature[2].item(), memory.top_p[2].item()] == [0.5, 0.25]
    assert memory.temperature[4].item() == 0
    assert memory.top_k[2].item() == 7
    assert slots.forced[2].tolist() == [4, 6, *[-1] * 8, 0, *[-1] * 37]
    assert (slots.forced[[0, 1, 3, 4, 5]] == -1).all()
    assert slots.ancestors[[4, 2], 3].tolist() == [4, 2]
    assert RECORD.itemsize % 8 == 0


def test_a_slot_forgets_what_was_forced_on_whom_it_held_before() -> None:
    told = Told()
    told.staging.bind(1, DecodingOptions(max_new_tokens=9, target_prefix=(4, 6, 8)), 0)
    told.say([1])
    told.staging.bind(1, DecodingOptions(max_new_tokens=9, forced_bos=7), 0)
    told.say([1])
    assert told.memory.slots.forced[1, :4].tolist() == [7, -1, -1, -1]
    told.staging.bind(1, DecodingOptions(max_new_tokens=9), 0)
    told.say([1])
    assert (told.memory.slots.forced == -1).all()
