"""What an engine needs of a model: token ids in, token ids out."""

from collections.abc import Sequence
from typing import Protocol

from model import Arrival, Step


class PendingStep(Protocol):
    """A launched decode step, or several."""

    def result(self) -> list[Step]:
        """Wait for it; returns what each target gained."""


class Latents(Protocol):
    """The counts of a latent cache."""

    hits: int
    misses: int

    @property
    def bytes(self) -> int:
        """Tensor data held now."""


class Runner(Protocol):
    """What the engine needs from a model: token ids in, token ids out.

    A call that raises leaves every row as it was, so that it can be repeated with fewer.
    """

    @property
    def latents(self) -> Latents:
        """The cache in front of the encoder."""

    @property
    def encoding(self) -> int:
        """Source tokens of the admitted that are not encoded yet; who awaits them gains nothing."""

    def admit(self, arrivals: Sequence[Arrival]) -> None:
        """Let sources take free rows."""

    def launch(self, names: Sequence[int], steps: int = 1) -> PendingStep:
        """Decode one token in every row of the targets named by their first rows, or several.

        Args:
            steps: how many at most. Where it is more than 1, a target of one row may gain as many
                tokens: fewer after the end token, at `max_new_tokens`, and once `interrupt` was
                called; and a runner may always decode less, one at least. Steps before one that
                raises count: they are the result, and the next call raises.
        """

    def interrupt(self) -> None:
        """Let the `launch` that runs, or else the next one, return after the step that it is in.

        Safe from any thread, and cheap: it waits for nothing.
        """

    def release(self, names: Sequence[int]) -> None:
        """Free the rows of targets."""
