"""Masking: stand-ins, which models copy, in place of what a model must not word.

A glossary's terms too: where a term itself, or the source's word, stands in the source, far fewer
targets hold the term once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, groupby, islice

from server.text import references
from server.text.nesting import pairs
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

    @property
    def phrases(self) -> tuple[str, ...]:
        """What the target must hold, for a search that can be told so."""
        return tuple(each.surrogate for each in self.stand_ins)


def mask(segment: Segment, writes: Callable[[str], bool]) -> Masked:
    """Put stand-ins in place of a segment's spans.

    Args:
        writes: whether the model's vocabulary can read and write a text.
    """
    spans, tags = _without_inner_tags(segment)
    spans = _joined(spans, tags)
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


def _without_inner_tags(segment: Segment) -> tuple[list[Span], list[Tag]]:
    """Let the text of a span hold the tags within it; those that cannot stand behind it."""
    tags, spans = list(segment.tags), list(segment.spans)
    if not tags or not spans:
        return spans, tags
    closes = pairs([(tag.kind, tag.name) for tag in tags])
    partners = closes | {close: start for start, close in closes.items()}
    dropped: set[int] = set()
    for number, span in enumerate(spans):
        inner = [i for i, tag in enumerate(tags) if span.start < tag.at < span.end]
        held = _held(inner, span, tags, partners)
        if held and (raw := _with_tags(span, segment, tags[held.start : held.stop])):
            spans[number] = replace(span, text=raw)
            dropped |= set(held)
        else:
            for i in inner:
                tags[i] = replace(tags[i], at=span.end)
    return spans, [tag for i, tag in enumerate(tags) if i not in dropped]


def _held(inner: list[int], span: Span, tags: list[Tag], partners: dict[int, int]) -> range:
    """Return the tags within a span and those that belong to them; none if one is elsewhere."""
    if not inner:
        return range(0)
    first, last, seen = inner[0], inner[-1], range(0)
    while seen != range(first, last + 1):
        seen = range(first, last + 1)
        for i in seen:
            partner = partners.get(i, i)
            is_alone = partner == i and tags[i].kind != "void"
            if is_alone or not span.start <= tags[partner].at <= span.end:
                return range(0)
            first, last = min(first, partner), max(last, partner)
    return seen


def _with_tags(span: Span, segment: Segment, tags: Sequence[Tag]) -> str:
    """Return the span's text with tags in it; empty where it is another text than the source's."""
    source = segment.text[span.start : span.end]
    if span.text not in (source, references.written(source)):
        return ""
    writes = references.written if span.text != source else str
    raw, read = "", span.start
    for tag in tags:
        raw += writes(segment.text[read : tag.at]) + tag.raw
        read = tag.at
    return raw + writes(segment.text[read : span.end])


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
