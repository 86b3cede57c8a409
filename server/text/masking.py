"""Masking: stand-ins, which models copy, in place of what a model must not word.

A glossary's terms too: where a term itself, or the source's word, stands in the source, far fewer
targets hold the term once.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, groupby, islice

from server.text.segments import Segment, Span, Tag

# Those that the bundled model copies best, and mixes up least where several are in a sentence:
# names are copied as well, but other models transliterate them.
_CODES = ("X7", "CD", "XBX", "BX", "XO", "XA", "HX", "XP", "WX", "QO")
_TRIED = 200


@dataclass(frozen=True, slots=True)
class StandIn:
    """What stands in a masked text for a span, or for several that touch.

    Attributes:
        start, end: in characters of the masked text.
        surrogate: what stands there; the target is searched for it.
        text: what the target holds instead.
        is_joined_before, is_joined_after: whether a space was put beside it for the model only.
    """

    start: int
    end: int
    surrogate: str
    text: str
    is_joined_before: bool = False
    is_joined_after: bool = False


@dataclass(frozen=True, slots=True)
class Masked:
    """A segment as the model reads it.

    Attributes:
        stand_ins: in order.
        tags: in order; `at` is in characters of this text.
        escapes: as the segment says.
    """

    text: str
    stand_ins: tuple[StandIn, ...]
    tags: tuple[Tag, ...]
    escapes: bool


def mask(segment: Segment, writes: Callable[[str], bool]) -> Masked:
    """Put stand-ins in place of a segment's spans.

    Args:
        writes: whether the model's vocabulary can read and write a text.
    """
    tags = _beside(segment)
    spans = _joined(segment.spans, tags)
    codes = _codes(segment.text, writes)
    text, stand_ins, read = "", list[StandIn](), 0
    for span in spans:
        text += segment.text[read : span.start]
        surrogate = next(codes)
        before = text[-1:].isalnum()
        after = segment.text[span.end : span.end + 1].isalnum()
        start = len(text) + before
        text += " " * before + surrogate + " " * after
        end = start + len(surrogate)
        stand_ins.append(StandIn(start, end, surrogate, span.text, before, after))
        read = span.end
    text += segment.text[read:]
    moved = tuple(_moved(tags, spans, stand_ins))
    return Masked(text, tuple(stand_ins), moved, segment.escapes)


def _codes(text: str, writes: Callable[[str], bool]) -> Iterator[str]:
    """Yield stand-ins that the segment does not hold; first those that can be written."""
    taken = text.casefold()
    endless = chain(_CODES, (f"X{number}" for number in count(11)))
    free = (code for code in endless if code.casefold() not in taken)
    others = []
    for code in islice(free, _TRIED):
        if writes(code):
            yield code
        else:
            others.append(code)
    yield from chain(others, free)


def _joined(spans: Sequence[Span], tags: Sequence[Tag]) -> list[Span]:
    """Join spans that touch, so that one stand-in is enough for them."""
    places = {tag.at for tag in tags}
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        if last is None or last.end != span.start or span.start in places:
            found.append(span)
        else:
            found[-1] = Span(last.start, span.end, last.text + span.text)
    return found


def _beside(segment: Segment) -> list[Tag]:
    """Return the tags; those within a span, which `protect` leaves none of, stand behind it."""
    tags, starts = list(segment.tags), [span.start for span in segment.spans]
    for number, tag in enumerate(tags if starts else ()):
        span = segment.spans[bisect_left(starts, tag.at) - 1]
        if span.start < tag.at < span.end:
            tags[number] = replace(tag, at=span.end)
    return tags


def _moved(tags: Sequence[Tag], spans: Sequence[Span], stand_ins: Sequence[StandIn]) -> list[Tag]:
    """Return the tags at their places in the masked text.

    At the edge of a span that was given a space, end tags stay on the left of it.
    """
    moved: list[Tag] = []
    following = list(zip(spans, stand_ins, strict=True))
    number, shift = 0, 0
    for at, group in groupby(tags, key=lambda tag: tag.at):
        while number < len(following) and following[number][0].end < at:
            span, stand_in = following[number]
            shift = stand_in.end + stand_in.is_joined_after - span.end
            number += 1
        left = right = at + shift
        if number < len(following):
            span, stand_in = following[number]
            if at == span.start:
                right = stand_in.start
                left = right - stand_in.is_joined_before
            elif at == span.end:
                left, right = stand_in.end, stand_in.end + stand_in.is_joined_after
                after = following[number + 1 : number + 2]
                if after and after[0][0].start == at:
                    right = after[0][1].start
        has_begun = False
        for tag in group:
            has_begun |= tag.kind != "close"
            moved.append(replace(tag, at=right if has_begun else left))
    return moved
