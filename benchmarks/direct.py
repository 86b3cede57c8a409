"""What an engine called directly can be asked: the same questions of Stele and of its peers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Ids = list[int]

LONGEST = 256  # tokens of a target at most, for everybody; CTranslate2's own default


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Sources to translate together.

    Attributes:
        sources: token ids, the end included.
        rows: sources decoded at once.
        at_once: give the engine all sources in one call, for it to group as it does best; else
            `rows` of them a call.
        beams: 1 is greedy.
        longest: tokens of a target at most.
    """

    sources: Sequence[Ids]
    rows: int
    at_once: bool = False
    beams: int = 1
    longest: int = LONGEST

    @property
    def calls(self) -> list[Sequence[Ids]]:
        """The sources of each call."""
        size = len(self.sources) if self.at_once else self.rows
        return [self.sources[at : at + size] for at in range(0, len(self.sources), size)]


class Direct(Protocol):
    """An engine in this process."""

    version: str

    def translate(self, work: Work) -> list[Ids]:
        """Return the targets' ids in order, without the end."""

    def translate_texts(self, texts: Sequence[str], target: str) -> list[str]:
        """Translate greedily from English, all at once, tokenisation included."""
