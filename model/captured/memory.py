"""Memory: every tensor that captured steps read or write, allocated once and never rebound."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from model.captured.operations import Outbox, Slots
from model.captured.weights import LENGTH_STEP, Weights
from model.kv_cache import round_up

RECORD = np.dtype(  # what the host says of a row: the slot it runs in, and what that is to hold
    [
        ("seed", "u8"),
        ("score", "f8"),
        ("slot", "i4"),
        ("token", "i4"),
        ("position", "i4"),
        ("is_active", "i4"),
        ("minimum", "i4"),
        ("max_position", "i4"),
        ("prefix", "i4"),
        ("source", "i4"),
        ("top_k", "i4"),
        ("temperature", "f4"),
        ("top_p", "f4"),
        ("renormalises", "i4"),
    ]
)
WIDE, SLOT, NUMBERS = 2, 4, 5  # its columns of 8 bytes; of 4 bytes, where the others begin
_NAMES = tuple(RECORD.names or ())[3:]


class Memory:
    """Keys and values, what each slot holds, and what steps leave for the host.

    The last slot and the last source are dummies of padding rows; all is zeros, never
    uninitialised. Indices are int32; offsets into keys and values may pass 2^31.

    Attributes:
        keys, values: [layers, slots + 1, heads, T, head_dim], T as `max_target` in whole steps.
        source_keys, source_values: [layers, slots + 1, heads, S, head_dim].
        source_length: [slots + 1] int32, by source.
        slots, outbox: as `operations` says; the positions of `forced` are all T.
        source_of_slot, prefix, top_k, renormalises: [slots + 1] int32; `prefix` is how many tokens
            are known, `renormalises` whether a search adds up what filters left.
        temperature, top_p: [slots + 1] float32, of slots that draw; temperature 0 of others.
        seed: [slots + 1] int64, the bits of an unsigned one.
        score: [slots + 1] float64, of the hypothesis that a slot holds; -inf where it holds none.
        row_slot: [rows] int32.
        numbers, wide: all fields of slots in one piece each, [fields, slots + 1] int32 and int64,
            in the order of `RECORD`.
        staged: [rows, 8-byte words of `RECORD`] int64, what the host says of a step's rows.
        groups: [searches, beams + 1] int32, the rows of each search in the order of its
            hypotheses, then how many they are; the number of rows of the step where there is none.
        candidates: [entries, 2, rows, width] int32, in the outbox's entry: the best tokens of each
            row, then the bits of their float32 log-probabilities.
        logits: [rows, vocabulary] float32, for choices on the host.
    """

    def __init__(
        self,
        weights: Weights,
        slots: int,
        rows: int,
        max_source: int,
        max_target: int,
        entries: int,
        beams: int,
        device: torch.device,
    ) -> None:
        """Allocate.

        Args:
            slots: hypotheses, and sources, at most.
            rows: of the largest step.
            entries: for how many steps their results stay.
            beams: of one search at most.
        """
        config, dtype = weights.config, weights.dtype
        layers, heads, head_dim = config.decoder_layers, config.decoder_heads, config.head_dim
        count = slots + 1
        capacity = round_up(max_target, LENGTH_STEP)

        def pool(length: int) -> Tensor:
            shape = (layers, count, heads, round_up(length, LENGTH_STEP), head_dim)
            return torch.zeros(shape, dtype=dtype, device=device)

        numbers = partial(_numbers, device)
        self.keys, self.values = pool(max_target), pool(max_target)
        self.source_keys, self.source_values = pool(max_source), pool(max_source)
        self.source_length = numbers(count)
        self.numbers = numbers(len(_NAMES), count)
        self.wide = torch.zeros(WIDE, count, dtype=torch.int64, device=device)
        by_name = dict(zip(_NAMES, self.numbers, strict=True))
        self.slots = _slots(by_name, count, capacity, device)
        self.source_of_slot, self.prefix = by_name["source"], by_name["prefix"]
        self.top_k, self.renormalises = by_name["top_k"], by_name["renormalises"]
        self.temperature = by_name["temperature"].view(torch.float32)
        self.top_p = by_name["top_p"].view(torch.float32)
        self.seed, self.score = self.wide[0], self.wide[1].view(torch.float64)
        self.row_slot = numbers(rows).fill_(slots)
        self.staged = torch.zeros(rows, RECORD.itemsize // 8, dtype=torch.int64, device=device)
        self.outbox = Outbox(numbers(1), numbers(entries, 2, rows))
        self.groups = numbers(max(rows // 2, 1), beams + 1)
        self.candidates = numbers(entries, 2, rows, min(2 * beams, config.vocabulary))
        self.logits = torch.zeros(rows, config.vocabulary, device=device)

    def take(self, rows: int) -> None:
        """Begin a run: write what was staged of the first `rows` rows to their slots."""
        wide = self.staged[:rows]
        numbers = wide.view(torch.int32)
        slot = numbers[:, SLOT]
        index = slot.long()
        self.row_slot[:rows].copy_(slot)
        self.numbers.index_copy_(1, index, numbers[:, NUMBERS:].t())
        self.wide.index_copy_(1, index, wide[:, :WIDE].t())
        # The cell that comes next is the slot's own, whatever it did before.
        place = self.slots.position[index].long()
        self.slots.ancestors.index_put_((index, place), slot)
        self.outbox.entry.zero_()

    def reorder(self, slots: Tensor, parents: Tensor) -> None:
        """Let each of `slots` look back at what its parent looks back at, both [rows] int64."""
        self.slots.ancestors.index_copy_(0, slots, self.slots.ancestors[parents])

    def clean_slot(self, slot: int) -> None:
        """Overwrite keys and values that may not be finite."""
        for cells in (self.keys, self.values):
            cells[:, slot].zero_()

    def clean_source(self, source: int) -> None:
        """Overwrite keys and values of a source that may not be finite."""
        for cells in (self.source_keys, self.source_values):
            cells[:, source].zero_()


def _numbers(device: torch.device, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int32, device=device)


def _slots(by_name: Mapping[str, Tensor], count: int, capacity: int, device: torch.device) -> Slots:
    """Return what operations see of `count` slots of so many positions."""
    return Slots(
        token=by_name["token"],
        position=by_name["position"],
        is_active=by_name["is_active"],
        minimum=by_name["minimum"],
        max_position=by_name["max_position"],
        history=_numbers(device, count, capacity + 1),
        ancestors=_numbers(device, count, capacity),
        forced=_numbers(device, count, capacity).fill_(-1),
    )
