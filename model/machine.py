"""What runs a network over rows: the eager one of PyTorch, or a compiled one."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from model.decoding.picks import Picks
from model.decoding.search import Alignment, Search
from model.decoding.target import GREEDY, Target
from model.latent_cache import Source


class Gain(NamedTuple):
    """What one target gained by itself; nothing where it is not healthy, or had to wait.

    Attributes:
        tokens: of a target that does not search, those of its prefix included.
        search: what became of its search, if it has one, after so many `steps`.
    """

    tokens: tuple[int, ...]
    is_healthy: bool
    search: Search | None = None
    steps: int = 0


class Machine(Protocol):
    """Holds a network, and keys and values of its rows and sources.

    A call that raises leaves what was decoded as it was.
    """

    def encode(self, sources: Sequence[Source]) -> list[Tensor]:
        """Return the latents [length, width] of distinct sources."""

    def holds(self, source: Source) -> bool:
        """Whether a source is here already, so that a new row may share it."""

    def add_sources(self, sources: Sequence[Source], latents: Sequence[Tensor]) -> None:
        """Take in sources; each stays until its last row is released, or `drop_unread`."""

    def drop_unread(self) -> None:
        """Give up every source that no row is bound to."""

    def bind(self, row: int, source: Source) -> None:
        """Begin an empty row that reads a source."""

    def release(self, row: int, *, is_clean: bool) -> None:
        """Free a row; one that is not clean may hold what is not finite."""

    def reorder(self, rows: Sequence[int], parents: Sequence[int], length: int) -> None:
        """Give each of `rows` the first `length` positions of its parent."""

    def step(self, targets: Sequence[Target]) -> Picks:
        """Decode one token in every row of the targets."""

    @property
    def least_steps(self) -> int:
        """From how many steps on `run` is better than `step`."""

    def room(self, target: Target, decoded: int) -> int:
        """Return how many tokens `run` may decode of a target that has `decoded`: 0 for none."""

    def run(self, targets: Sequence[Target], rooms: Sequence[int]) -> list[Gain]:
        """Decode several tokens of each target without looking up.

        Args:
            rooms: the most that each may gain: at least one, at most its `room`.

        Returns:
            What each gained, the end token last if it came. One at least gained something.
        """

    def interrupt(self) -> None:
        """Let the `run` under way, or else the next one, end after a step; from any thread."""


def greedy_room(target: Target, decoded: int) -> int:
    """Return how many tokens a target can gain as the likeliest ones: up to the next forced one."""
    if target.width(decoded) != GREEDY or target.wants_alignment:
        return 0
    limit = target.prefix + target.options.max_new_tokens
    return min([limit, *(at for at in target.forced if at > decoded)]) - decoded


def wants_attention(targets: Sequence[Target]) -> bool:
    """Whether any of the targets is to tell what it looks at."""
    return any(target.wants_alignment for target in targets)


def alignments(weights: Tensor, targets: Sequence[Target]) -> dict[int, Alignment]:
    """Return, by place in the step, what each row that asks looks at: the mean over heads.

    It is that of the layer asked for, or of all layers.

    Args:
        weights: of cross-attention, [layers, rows, heads, source].
    """
    asked = [(t.options.alignments, t.source_length) for t in targets for _ in t.rows]
    places = [place for place, (wanted, _) in enumerate(asked) if wanted is not None]
    by_layer = weights[:, places].float().mean(2)  # [layers, places, source]
    average = by_layer.mean(0)
    found = {}
    for index, place in enumerate(places):
        wanted, length = asked[place]
        chosen = by_layer[wanted, index] if isinstance(wanted, int) else average[index]
        found[place] = tuple(chosen[:length].tolist())
    return found
