"""What a text came to, once its segments have been read: its parts put together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.messages import Timings
from server.reader import Aligned, Reader, Variant
from server.text.languages import Detection


@dataclass(frozen=True, slots=True)
class Usage:
    """What a text cost, in tokens."""

    source_tokens: int
    target_tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """One text's translation; `finish` is stop, length or stop_string.

    Attributes:
        hypotheses: what a beam search returns, best first, the text itself included; else empty.
        alternatives: other texts, likeliest first, where they were asked for.
        alignments: by segment, where they were asked for.
    """

    text: str
    finish: str
    usage: Usage
    timings: Timings
    scores: tuple[float, ...]
    warnings: tuple[str, ...]
    detected: Detection | None
    hypotheses: tuple[Variant, ...] = ()
    alternatives: tuple[Variant, ...] = ()
    alignments: tuple[Aligned, ...] = ()


Part = str | Reader  # text that stays as it is, or a segment to be translated


@dataclass(slots=True)
class Text:
    """One text of a request as parts in order."""

    parts: list[Part]
    detected: Detection | None = None
    warnings: tuple[str, ...] = ()  # what was noticed before anything was generated

    @property
    def readers(self) -> list[Reader]:
        """The parts that are generated."""
        return [part for part in self.parts if isinstance(part, Reader)]

    @property
    def all_readers(self) -> list[Reader]:
        """The parts that are generated, each with its alternatives."""
        return [one for part in self.readers for one in (part, part.others) if one is not None]


def result_of(text: Text, total_s: float) -> Result:
    """Return what a text came to, once all of it has been read."""
    readers = text.readers
    timings = [reader.timings for reader in readers if reader.timings]
    finishes = [reader.finish for reader in readers]
    is_cut = "length" in finishes
    return Result(
        text="".join(p if isinstance(p, str) else p.text for p in text.parts),
        finish="length" if is_cut else "stop_string" if "stop_string" in finishes else "stop",
        usage=Usage(
            sum(len(reader.request.source) for reader in readers),
            sum(len(reader.tokens) for reader in readers),
        ),
        timings=Timings(
            min((t.queue_s for t in timings if t.queue_s is not None), default=None),
            min((t.first_token_s for t in timings if t.first_token_s is not None), default=None),
            total_s,
        ),
        scores=tuple(token.score for reader in readers for token in reader.tokens),
        warnings=(*text.warnings, *_warnings(text.parts)),
        detected=text.detected,
        hypotheses=_hypotheses(text.parts),
        alternatives=_alternatives(text.parts),
        alignments=tuple(reader.aligned for reader in readers if reader.aligned),
    )


def _warnings(parts: Sequence[Part]) -> Iterable[str]:
    for number, part in enumerate(parts):
        if isinstance(part, str):
            continue
        if part.finish == "length":
            limit = part.request.options.max_new_tokens
            yield f"segment {number} was cut at {limit} tokens; send a larger max_new_tokens"
        for text in part.misplaced:
            yield (
                f"segment {number}: the model left out {text[:100]!r}; it was put where attention "
                "points, so check its place"
            )
        others = (*part.variants, *(part.others.variants if part.others else ()))
        elsewhere = {text for each in others for text in each.misplaced}
        for text in sorted(elsewhere - {*part.misplaced}):
            yield (
                f"segment {number}: the model left out {text[:100]!r} in another text for it; it "
                "was put where attention points, so check its place"
            )


def _hypotheses(parts: Sequence[Part]) -> tuple[Variant, ...]:
    """Return whole texts of the segments' best hypotheses, then of their second ones, and so on."""
    lists = [part.variants for part in parts if isinstance(part, Reader)]
    return tuple(_combined(parts, lists, rank) for rank in range(max(map(len, lists), default=0)))


def _alternatives(parts: Sequence[Part]) -> tuple[Variant, ...]:
    """Return texts that differ from the translation and from each other, and say something."""
    readers = [part for part in parts if isinstance(part, Reader)]
    lists = [
        tuple(v for v in (reader.others.variants if reader.others else ()) if v.text != reader.text)
        for reader in readers
    ]
    others = [reader.others for reader in readers if reader.others]
    wanted = max((other.request.options.alternatives - 1 for other in others), default=0)
    seen = {"".join(part if isinstance(part, str) else part.text for part in parts), ""}
    found: list[Variant] = []
    for rank in range(max(map(len, lists), default=0)):
        variant = _combined(parts, lists, rank)
        if variant.text not in seen and len(found) < wanted:
            seen.add(variant.text)
            found.append(variant)
    return tuple(found)


def _combined(parts: Sequence[Part], lists: Sequence[tuple[Variant, ...]], rank: int) -> Variant:
    """Put the variants of this rank together; a segment with fewer keeps its own text."""
    texts, score, is_cut, tokens, variants = [], 0.0, False, 0, iter(lists)
    misplaced: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        own = next(variants)
        chosen = own[rank] if rank < len(own) else None
        texts.append(chosen.text if chosen else part.text)
        score += chosen.score if chosen else 0.0
        tokens += chosen.tokens if chosen else len(part.tokens)
        misplaced += chosen.misplaced if chosen else part.misplaced
        is_cut |= (chosen.finish if chosen else part.finish) == "length"
    return Variant("".join(texts), score, "length" if is_cut else "stop", tokens, tuple(misplaced))
