"""What crosses the engine's door: plain values in, plain values out, nothing mutable."""

from dataclasses import dataclass

from model import DecodingOptions, Hypothesis
from server.generation import Finish


@dataclass(frozen=True, slots=True)
class Request:
    """One source to be continued into one target.

    What does not stream is published once, at its end: waking its reader at every token would cost
    the event loop more than it is worth. With `previews` a stream also tells what a search holds
    best beyond what is certain.
    """

    source: tuple[int, ...]
    options: DecodingOptions
    streams: bool = True
    previews: bool = False


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds from acceptance; None for what did not happen."""

    queue_s: float | None
    first_token_s: float | None
    total_s: float


@dataclass(frozen=True, slots=True)
class Update:
    """What changed for one generation in one step; what follows `preview` comes once, at its end.

    Tokens are certain. The preview is not: it stands for what the best hypothesis adds to them.
    """

    id: int
    tokens: tuple[int, ...]
    scores: tuple[float, ...]
    alignments: tuple[tuple[float, ...], ...] = ()
    preview: tuple[int, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    finish: Finish | None = None
    timings: Timings | None = None
