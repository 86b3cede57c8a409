"""Steps: every captured step, by how many rows it has and by what it does with their logits."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.captured.beams import search
from model.captured.buckets import bucket_of
from model.captured.device import Device
from model.captured.draw import draw
from model.captured.graph import Graph
from model.captured.memory import Memory
from model.captured.network import Decoder
from model.captured.operations import Operations
from model.captured.weights import Weights

# Whether the host chooses, or the step: the likeliest tokens; draws, too; beams, too; or all.
Variant = Literal["logits", "greedy", "draws", "beams", "mixed"]
VARIANTS: tuple[Variant, ...] = ("mixed", "beams", "draws", "greedy", "logits")


class Steps:
    """Captures all steps of a decoder at once, and replays one by its number of rows."""

    def __init__(
        self,
        weights: Weights,
        memory: Memory,
        operations: Operations,
        device: Device,
        buckets: Sequence[int],
        suppressed: Tensor,
    ) -> None:
        """Capture, the largest first: what it needs others can use again.

        The memory must be new: steps run on the dummy slot meanwhile.

        Args:
            buckets: ascending numbers of rows.
            suppressed: tokens that are never chosen, int64.
        """
        self._weights, self._memory, self._operations = weights, memory, operations
        self._decoder = Decoder(weights, memory, operations)
        self.buckets, self._vocabulary = tuple(buckets), weights.config.vocabulary
        bias = weights.logits_bias
        known = torch.zeros(self._vocabulary, device=device.device) if bias is None else bias
        never = float("-inf")
        padding = len(weights.output) - self._vocabulary
        self._bias = F.pad(known.index_fill(0, suppressed, never), (0, padding), value=never)
        self._columns = torch.arange(self._vocabulary, device=device.device)
        with device.decoding():
            pairs = [(bucket, variant) for bucket in reversed(buckets) for variant in VARIANTS]
            steps = [partial(self.run, *pair) for pair in pairs]
            steps += [partial(memory.take, bucket) for bucket in buckets]
            graphs = device.capture(steps)
            memory.outbox.entry.zero_()
        self._graphs: dict[tuple[int, Variant], Graph] = dict(zip(pairs, graphs, strict=False))
        self._takes = dict(zip(buckets, graphs[len(pairs) :], strict=True))

    def bucket(self, rows: int) -> int:
        """Return how many rows the step for `rows` has."""
        return bucket_of(rows, self.buckets)

    def take(self, bucket: int) -> None:
        """Replay `Memory.take`."""
        self._takes[bucket].replay()

    def replay(self, bucket: int, variant: Variant) -> None:
        """Replay one step; what it leaves, and where, depends on the variant."""
        self._graphs[bucket, variant].replay()

    def run(self, rows: int, variant: Variant, attention: list[Tensor] | None = None) -> None:
        """Decode one token in the first `rows` rows of the memory; this is what is captured.

        Args:
            attention: receives the weights of each layer's cross-attention, [rows, heads, S].
        """
        memory, row_slot = self._memory, self._memory.row_slot[:rows]
        logits = self._decoder(row_slot, attention)
        if variant == "logits":
            memory.logits[:rows].copy_(self._biased(logits))
            return
        end, slots = self._weights.config.eos, memory.slots
        likeliest = self._operations.pick(
            logits, self._vocabulary, self._bias, row_slot, slots, end
        )
        if variant != "greedy":
            filtered = self._filtered(logits, row_slot)
            if variant in ("draws", "mixed"):
                likeliest = draw(filtered, likeliest, row_slot, memory)
            if variant in ("beams", "mixed"):
                raw = self._biased(logits)
                likeliest = search(raw, filtered, likeliest, row_slot, memory, end)
        self._operations.advance(likeliest, row_slot, slots, memory.outbox, end)

    def _biased(self, logits: Tensor) -> Tensor:
        bias = self._weights.logits_bias
        return logits[:, : self._vocabulary] + (0 if bias is None else bias)

    def _filtered(self, logits: Tensor, row_slot: Tensor) -> Tensor:
        """Return the logits of tokens that may come, and -inf of others, [rows, vocabulary]."""
        slots, slot = self._memory.slots, row_slot.long()
        is_early = slots.position[slot] < slots.minimum[slot]
        is_never = is_early[:, None] & (self._columns == self._weights.config.eos)
        bias = self._bias[: self._vocabulary]
        # Not by adding alone: a NaN of a token that never comes does not count.
        never = is_never | bias.isneginf()
        return (logits[:, : self._vocabulary] + bias).masked_fill(never, float("-inf"))
