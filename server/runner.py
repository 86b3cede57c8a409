"""What an engine needs of a model: token ids in, token ids out."""

from collections.abc import Sequence
from typing import Protocol

from model import Arrival, Step


class PendingStep(Protocol):
    """A launched decode step."""

    def result(self) -> list[Step]:
        """Wait for the step; returns what each target gained."""


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

    def admit(self, arrivals: Sequence[Arrival]) -> None:
        """Let sources take free rows."""

    def launch(self, names: Sequence[int]) -> PendingStep:
        """Decode one token in every row of the targets named by their first rows."""

    def release(self, names: Sequence[int]) -> None:
        """Free the rows of targets."""
