"""What crosses the engine's door: plain values in, plain values out, nothing mutable.

Inside, a request becomes a Generation, and an update tells what is new about one.
"""

from dataclasses import dataclass

from model import DecodingOptions, Hypothesis
from server.generation import Finish, Generation


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


def begun(request: Request, identity: int, group: int, now: float, timeout_s: float) -> Generation:
    """Return what the engine makes of a request that it accepts now."""
    return Generation(
        id=identity,
        group=group,
        source=request.source,
        options=request.options,
        max_new_tokens=request.options.max_new_tokens,
        deadline=now + timeout_s,
        accepted_at=now,
        streams=request.streams,
        previews=request.previews,
    )


def news_of(generation: Generation, now: float) -> Update:
    """Return what is new since the last call; from now on it is published."""
    seen, generation.published = generation.published, len(generation.target)
    return Update(
        generation.id,
        tuple(generation.target[seen:]),
        tuple(generation.scores[seen:]),
        tuple(generation.alignments[seen:]),
        generation.preview,
        generation.hypotheses,
        generation.finish,
        None if generation.finish is None else _timings(generation, now),
    )


def _timings(generation: Generation, now: float) -> Timings:
    def since(moment: float | None) -> float | None:
        return None if moment is None else moment - generation.accepted_at

    admitted, first = since(generation.admitted_at), since(generation.first_token_at)
    return Timings(admitted, first, now - generation.accepted_at)
