"""What a captured decode step is made of beside matrix products: contracts, and what they share.

Every shape is fixed when a step is captured. Which rows run, and how far each is, is read from
tensors on the device, so one captured step serves whatever the rows come to hold.

A row of a step is a place in its batch; a slot is where a hypothesis lives. `row_slot` [rows] maps
one to the other, each slot at most once, except that padding rows all name the dummy slot, the
last. A row whose slot is not active is inactive; the dummy never is active. Inactive rows change
nothing of their slot; what they compute is finite or zero, and means nothing.

T is the capacity of a slot in positions, S that of a source, H heads of D each, a power of two.
Activations, keys and values are float16, bfloat16 or float32; all arithmetic is float32. Index
tensors are int32. Everything is contiguous.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

WAS_ACTIVE, HAS_ENDED, IS_FINITE = 1, 2, 4  # flags of a row in `Outbox.cells`
NormKind = Literal["layer", "rms"]


class CannotCapture(ValueError):
    """The network or what was asked for excludes captured steps."""


@dataclass(frozen=True, slots=True)
class Slots:
    """What each slot holds; int32, allocated once, never rebound. The dummy slot is the last.

    Attributes:
        token: [slots + 1] what the next step reads.
        position: [slots + 1] where `token` stands, below T; so many tokens have been chosen.
        is_active: [slots + 1] 1 or 0.
        minimum: [slots + 1] before so many tokens, those of a prefix included, the end token is
            not picked, and does not end the row where it is forced.
        max_position: [slots + 1] how many tokens may be chosen, 1 to T.
        history: [slots + 1, T + 1] the start token and what was chosen since.
        ancestors: [slots + 1, T] the slot in which keys and values of each earlier position lie.
            Who fills a slot sets its first to the slot itself.
        forced: [slots + 1, any] the token that must come after so many, or -1.
    """

    token: Tensor
    position: Tensor
    is_active: Tensor
    minimum: Tensor
    max_position: Tensor
    history: Tensor
    ancestors: Tensor
    forced: Tensor


@dataclass(frozen=True, slots=True)
class Outbox:
    """Where steps leave what the host reads late; int32, allocated once, never rebound.

    Attributes:
        entry: [1] which entry the next step writes.
        cells: [entries, 2, rows of the largest batch]: for each row its token, then its flags.
            Rows beyond those of the step keep what they had.
    """

    entry: Tensor
    cells: Tensor


class Likeliest(NamedTuple):
    """The best token of each part of the vocabulary.

    Attributes:
        values: [rows, parts] float32, its logit; NaN if any logit of the part is.
        tokens: [rows, parts] int32, within the vocabulary; the lowest id of equal ones.
    """

    values: Tensor
    tokens: Tensor


class Embed(Protocol):
    """Embeds what each row reads."""

    def __call__(
        self,
        row_slot: Tensor,
        slots: Slots,
        table: Tensor,
        scale: float,
        positions: Tensor | None,
        offset: int,
        padding: int | None,
    ) -> Tensor:
        """Return [rows, width] float32: `table[token] * scale + positions[position + offset]`.

        Inactive rows get zeros; their token is not read.

        Args:
            table: [vocabulary or more, width].
            positions: [any, width], or None where a model has no such table.
            offset: of `positions`.
            padding: a token that gets row `offset` - 1 of `positions` wherever it stands.
        """


class AddNorm(Protocol):
    """Adds a branch to the residual stream and norms the sum."""

    def __call__(
        self,
        residual: Tensor,
        update: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        epsilon: float,
        kind: NormKind,
        is_pre: bool,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream [rows, width] float32, and the norm in `dtype`.

        With `is_pre` the stream goes on as the sum, else as the norm before it is rounded.
        Nothing is written in place. Norms are those of `model.layers`, but rounded only once.

        Args:
            residual: [rows, width] float32.
            update: [rows, width] of any dtype; None adds nothing.
            weight, bias: [width] of any dtype.
        """


class AppendAttend(Protocol):
    """Self-attention of single positions, which are appended to the slots."""

    def __call__(
        self,
        qkv: Tensor,
        keys: Tensor,
        values: Tensor,
        row_slot: Tensor,
        position: Tensor,
        is_active: Tensor,
        ancestors: Tensor,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        """Return what each row mixes [rows, H * D], in the dtype of `qkv`; 0 for inactive rows.

        Of each active row, key and value are written to the cell (slot, :, position), and to no
        other. Position t before it is read from the cell (`ancestors[slot, t]`, :, t); the new one
        is not read back. No row may read a cell that another row of the step writes: rows that
        share ancestors are at the same position. Any other cell may hold anything, NaN included.

        Args:
            qkv: [rows, 3 * H * D] queries, then keys, then values.
            keys, values: [slots + 1, H, T, D] in the dtype of `qkv`.
            position, is_active, ancestors: as in `Slots`.
            bias: [H, T] float32, added to the scores by distance, 0 first.
            scale: multiplies the scores, before the bias.
        """


class CrossAttend(Protocol):
    """Attention of single positions to their sources."""

    def __call__(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        row_slot: Tensor,
        source_of_slot: Tensor,
        source_length: Tensor,
        is_active: Tensor,
        scale: float,
    ) -> Tensor:
        """Return what each row mixes [rows, H * D], in the dtype of `query`.

        Inactive rows, and those whose source has no position, get 0. Cells from the length of a
        source on may hold anything, NaN included.

        Args:
            query: [rows, H * D].
            keys, values: [sources + 1, H, S, D] in the dtype of `query`.
            source_of_slot: [slots + 1] which source each slot reads; read of active slots only.
            source_length: [sources + 1] up to S.
            scale: multiplies the scores.
        """


class Pick(Protocol):
    """Finds the likeliest token of each row."""

    def __call__(
        self,
        logits: Tensor,
        vocabulary: int,
        bias: Tensor | None,
        row_slot: Tensor,
        slots: Slots,
        end: int,
    ) -> Likeliest:
        """Return the likeliest of the first `vocabulary` tokens, by parts as it likes.

        Args:
            logits: [rows, vocabulary or more] float32; columns beyond may hold anything.
            bias: [vocabulary or more] float32, added; best as wide as `logits`. A token whose
                bias is -inf is never picked, and its logit, NaN included, does not count.
            end: the end token; it does not count either before the slot's `minimum`.
        """


class Advance(Protocol):
    """Ends a step: each active row takes its token."""

    def __call__(
        self, likeliest: Likeliest, row_slot: Tensor, slots: Slots, outbox: Outbox, end: int
    ) -> None:
        """Write what each row took to its slot, and to the outbox.

        The token is the forced one where there is one, else that of the highest value, of equal
        ones the lowest id. A row is finite if the highest value is and none is NaN; else its token
        is 0. To draw instead, replace `likeliest.tokens` of a row: all by the token drawn.

        An active row ends if it is not finite, or with the end token from its `minimum` on, or
        where `max_position` tokens have been chosen. In its slot: `token` and
        `history[position + 1]` become the token, `is_active` 0 if it ended, `position` grows by
        one, and `ancestors` at the new position, if below T, becomes the slot itself. So what
        reorders beams comes before: it copies `ancestors` up to and including the position read.

        `outbox.cells[entry]` gets token and flags of each row of the step, both 0 of an inactive
        one; then `entry` goes on to the next, after the last to the first.
        """


@dataclass(frozen=True, slots=True)
class Operations:
    """One implementation of each; none synchronises with the host, all can be captured."""

    embed: Embed
    add_norm: AddNorm
    append_attend: AppendAttend
    cross_attend: CrossAttend
    pick: Pick
    advance: Advance
