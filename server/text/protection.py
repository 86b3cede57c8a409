"""Protection: what in a block stays as it is, or as a glossary says, rather than be worded."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from server.text import references
from server.text.nesting import pairs
from server.text.placeholders import find_placeholders
from server.text.rules import TextRules
from server.text.segments import Segment, Span, Tag
from server.text.terms import find_terms


def protect(block: Segment, rules: TextRules) -> Segment:
    """Add spans for placeholders and for the terms of `rules`; those that it has win.

    Of those that overlap the leftmost wins, then the longest. Tags within a placeholder come out
    within it, with those at its edges that they belong to; those within a term, at its edge.
    """
    if not block.is_translatable:
        return block
    found = [Span(start, end, "") for start, end in find_placeholders(block.text)]
    if rules.glossary or rules.protected:
        found += (
            Span(term.start, term.end, term.target or "", term.target is not None)
            for term in find_terms(block.text, rules)
        )
    if not found:
        return block
    chosen = _apart(found, block.spans)
    return _with_spans(block, chosen)


def _apart(found: list[Span], given: Sequence[Span]) -> Iterator[Span]:
    """Yield those that overlap neither each other nor what is given, in order."""
    found.sort(key=lambda span: (span.start, -span.end, not span.is_term))
    at, ahead = 0, iter([*given, None])
    other = next(ahead)
    for span in found:
        while other and other.end <= span.start:
            other = next(ahead)
        if span.start >= at and not (other and other.start < span.end):
            yield span
            at = span.end


def _with_spans(block: Segment, chosen: Iterable[Span]) -> Segment:
    tags = list[Tag | None](block.tags)
    tag_ats = [tag.at for tag in block.tags]
    closes = pairs([(tag.kind, tag.name) for tag in block.tags])
    partners = closes | {close: start for start, close in closes.items()}
    spans = list[Span](block.spans)
    for span in chosen:
        first, last = bisect_right(tag_ats, span.start), bisect_left(tag_ats, span.end)
        inside = block.tags[first:last]
        if span.is_term:
            text = references.written(span.text) if block.escapes else span.text
        elif held := _held(block, span, range(first, last), partners):
            text = _shown(block, span, block.tags[held.start : held.stop])
            tags[held.start : held.stop] = [None] * len(held)
            inside = ()
        else:
            text = _shown(block, span, ())
        moved = _at_edge(inside, span)
        if moved is None:
            continue
        tags[first:last] = moved or tags[first:last]
        spans.append(replace(span, text=text))
    spans.sort(key=lambda span: span.start)
    kept = tuple(tag for tag in tags if tag is not None)
    return replace(block, spans=tuple(spans), tags=kept)


def _held(block: Segment, span: Span, inside: range, partners: Mapping[int, int]) -> range:
    """Return the tags within a span and those at its edges that these belong to; none if apart."""
    found = inside
    while found:
        first, last = found[0], found[-1]
        for i in found:
            partner = partners.get(i, i)
            is_alone = partner == i and block.tags[i].kind != "void"
            if is_alone or not span.start <= block.tags[partner].at <= span.end:
                return range(0)
            first, last = min(first, partner), max(last, partner)
        if found == range(first, last + 1):
            break
        found = range(first, last + 1)
    return found


def _at_edge(tags: Sequence[Tag], span: Span) -> list[Tag] | None:
    """Return tags that are within a span at its edge; None where that would part their pairs."""
    kinds = {tag.kind for tag in tags}
    if kinds >= {"open", "close"}:
        return None
    at = span.start if "open" in kinds else span.end
    return [replace(tag, at=at) for tag in tags]


def _shown(block: Segment, span: Span, tags: Iterable[Tag]) -> str:
    """Return what is in a span as it was sent."""
    parts, at = list[str](), span.start
    for tag in tags:
        parts += _sent(block, at, tag.at), tag.raw
        at = tag.at
    return "".join((*parts, _sent(block, at, span.end)))


def _sent(block: Segment, start: int, end: int) -> str:
    text = block.text[start:end]
    return references.written(text) if block.escapes else text
