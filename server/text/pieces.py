"""Pieces: a block cut at given places, its spans and tags given to the pieces they belong to."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from server.text.segments import Segment, Span, Tag

_REFERENCES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escaped(text: str) -> str:
    """Return `text` as it stands within markup."""
    return text.translate(_REFERENCES)


def pieces(block: Segment, cuts: Iterable[int]) -> list[Segment]:
    """Cut a block; its pieces are what is translated, and the margins between, which stay.

    A piece without a letter outside its spans stays too. White space, tags and loose spans (emoji
    and the like) at a piece's edge join the margin, but for a tag whose other half is within the
    piece: the two are placed together.

    Args:
        cuts: in characters, ascending, each strictly within the text and within no span.
    """
    if not (block.spans or block.tags or block.escapes):
        return _plain_pieces(block, cuts)
    return _Cutter(block).pieces([0, *cuts, len(block.text)])


def _plain_pieces(block: Segment, cuts: Iterable[int]) -> list[Segment]:
    """Do the same for text that carries nothing, as nearly all does."""
    text, found, start, kept = block.text, list[Segment](), 0, 0
    for end in (*cuts, len(text)):
        core = text[start:end].lstrip()
        if any(map(str.isalpha, core)):
            begin, core = end - len(core), core.rstrip()
            if kept < begin:
                found.append(Segment(text[kept:begin], is_translatable=False))
            found.append(Segment(core, is_translatable=True))
            kept = begin + len(core)
        start = end
    if kept < len(text):
        found.append(Segment(text[kept:], is_translatable=False))
    return found


class _Cutter:
    """Cuts one block that carries something."""

    def __init__(self, block: Segment) -> None:
        self._block = block
        self._tag_ats = [tag.at for tag in block.tags]
        self._span_starts = [span.start for span in block.spans]
        self._partners = _partners(block.tags)

    def pieces(self, bounds: Sequence[int]) -> list[Segment]:
        found, kept, first_tag = list[Segment](), 0, 0  # what is before has been given out
        for start, end in pairwise(bounds):
            start, end = self._core(start, end)
            if not self._has_letters(start, end):
                continue
            begin = self._first_kept(start, end, first_tag)
            stop = self._last_kept(start, end, begin)
            self._give_margin(found, kept, start, first_tag, begin)
            found.append(self._core_segment(start, end, begin, stop))
            kept, first_tag = end, stop
        self._give_margin(found, kept, len(self._block.text), first_tag, len(self._tag_ats))
        return found

    def _core(self, start: int, end: int) -> tuple[int, int]:
        """Leave white space and loose spans out at both edges."""
        text, spans = self._block.text, self._block.spans
        first = bisect_left(self._span_starts, start)
        last = bisect_left(self._span_starts, end)
        while True:
            start, end = _stripped(
                text,
                (start, spans[first].start if first < last else end),
                (spans[last - 1].end if first < last else start, end),
            )
            if first < last and spans[first].start == start and is_loose(text, spans[first]):
                start, first = spans[first].end, first + 1
            elif first < last and spans[last - 1].end == end and is_loose(text, spans[last - 1]):
                end, last = spans[last - 1].start, last - 1
            else:
                return start, end

    def _spans(self, start: int, end: int) -> tuple[Span, ...]:
        spans = self._block.spans
        return spans[bisect_left(self._span_starts, start) : bisect_left(self._span_starts, end)]

    def _has_letters(self, start: int, end: int) -> bool:
        text, at = self._block.text, start
        for span in self._spans(start, end):
            if any(map(str.isalpha, text[at : span.start])):
                return True
            at = span.end
        return any(map(str.isalpha, text[at:end]))

    def _first_kept(self, start: int, end: int, given: int) -> int:
        """Return the first of the tags that stay in the piece rather than before it."""
        first = max(given, bisect_left(self._tag_ats, start))
        within = bisect_right(self._tag_ats, start)
        for number in range(first, within):
            partner = self._partners.get(number)
            if partner is not None and within <= partner and self._tag_ats[partner] < end:
                return number
        return max(first, within)

    def _last_kept(self, start: int, end: int, begin: int) -> int:
        """Return the first of the tags that come after the piece."""
        outside = bisect_left(self._tag_ats, end)
        for number in reversed(range(outside, bisect_right(self._tag_ats, end))):
            partner = self._partners.get(number)
            if partner is not None and start < self._tag_ats[partner] < end:
                return max(begin, number + 1)
        return max(begin, outside)

    def _core_segment(self, start: int, end: int, begin: int, stop: int) -> Segment:
        return replace(
            self._block,
            text=self._block.text[start:end],
            spans=tuple(
                replace(span, start=span.start - start, end=span.end - start)
                for span in self._spans(start, end)
            ),
            tags=tuple(replace(tag, at=tag.at - start) for tag in self._block.tags[begin:stop]),
        )

    def _give_margin(
        self, found: list[Segment], start: int, end: int, first: int, last: int
    ) -> None:
        """Put what is between two pieces where it belongs, as it comes out."""
        shown, at, spans = list[str](), start, iter([*self._spans(start, end), None])
        span, tags = next(spans), iter([*self._block.tags[first:last], None])
        tag = next(tags)
        while span or tag:
            if tag and (span is None or tag.at <= span.start):
                shown += self._shown(at, tag.at), tag.raw
                at, tag = max(at, tag.at), next(tags)
            elif span:
                shown += self._shown(at, span.start), span.text
                at, span = span.end, next(spans)
        text = "".join((*shown, self._shown(at, end)))
        if text:
            found.append(Segment(text, is_translatable=False))

    def _shown(self, start: int, end: int) -> str:
        text = self._block.text[start:end]
        return escaped(text) if self._block.escapes else text


def _partners(tags: Sequence[Tag]) -> dict[int, int]:
    """Return each tag's other half, by their numbers; a half alone has none."""
    opened: dict[str, list[int]] = {}
    partners = dict[int, int]()
    for number, tag in enumerate(tags):
        if tag.kind == "open":
            opened.setdefault(tag.name, []).append(number)
        elif tag.kind == "close" and opened.get(tag.name):
            other = opened[tag.name].pop()
            partners |= {number: other, other: number}
    return partners


_LOOSE = re.compile(r"[<\u2190-\u2bff\U0001f000-\U0001faff]|[0-9#*]\ufe0f?\u20e3")


def is_loose(text: str, span: Span) -> bool:
    """Whether a span is no word of a sentence: an emoji, or what looks like a tag."""
    return not span.is_term and _LOOSE.match(text, span.start) is not None


def _stripped(text: str, begins: tuple[int, int], ends: tuple[int, int]) -> tuple[int, int]:
    """Return where the text in between begins and ends, each from one place to another."""
    (start, latest), (earliest, end) = begins, ends
    while start < latest and text[start].isspace():
        start += 1
    while end > max(start, earliest) and text[end - 1].isspace():
        end -= 1
    return start, end
