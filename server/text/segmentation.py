"""Text cut into what is translated and what stays as it is, without losing a character."""

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from operator import itemgetter

import sentencex

from server.text.boundaries import boundary
from server.text.markers import marker, number
from server.text.pieces import pieces
from server.text.rules import TextRules
from server.text.segments import Segment, Span, Tag

_ENDS = r"\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
_END = re.compile(f"[{_ENDS}]")
_LINE = re.compile(f"([^{_ENDS}]*)([{_ENDS}]*)")
_BREAK = re.compile(rf"(?<!\s)[^\S{_ENDS}]*+([{_ENDS}]\s*+)")  # white space with a line end in it
_TO_SPACES = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", " "))
_NUMBER_AT_END = re.compile(r"(?<!\d)\d{1,3}\.\s*\Z")
# Languages in which a full stop makes an ordinal of a number: 3. Oktober, 2. Weltkrieg.
_WITH_ORDINALS = re.compile(r"(?:bs|cs|da|de|et|eu|fi|fo|hr|hu|is|lb|lv|nb|nn|no|pl|sk|sl|sr|tr)\b")
_UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff9f]")
_TAIL = 8  # characters of a sentence that its last number is looked for in
_SHOWN = 40  # characters of a text in an error


# -- text to blocks ------------------------------------------------------------------------------


def lines(text: str, rules: TextRules) -> list[Segment]:
    """Cut plain text into blocks, and what is before, between and after them.

    A block is a line; where `rules` let sentences flow, a paragraph, which a blank line or a list's
    marker ends; or the whole text. Indents, markers, trailing white space and line ends stay.
    """
    if rules.sentences == "whole":
        return list(_parts(text, lambda: frozenset()))
    found = _LINE.findall(text)[:-1]  # but for the nothing after the last line
    if len(found) == 1 and not found[0][1]:
        return list(_parts(text, lambda: frozenset()))

    @cache
    def numbers() -> Collection[int]:
        return {count for line, _ in found if (count := number(line)) is not None}

    if rules.sentences == "flow":
        found = list(_paragraphs(found, numbers))
    return [
        part
        for line, end in found
        for part in (*_parts(line, numbers), Segment(end, is_translatable=False))
        if part.text
    ]


def _paragraphs(
    found: Sequence[tuple[str, str]], numbers: Callable[[], Collection[int]]
) -> Iterator[tuple[str, str]]:
    """Join the lines of each paragraph; as in Markdown, only a list's 1. breaks into one."""
    paragraph, end, is_list = "", "", False
    for line, line_end in found:
        before = marker(line, numbers).strip()
        if paragraph and (
            not line.strip() or _is_blank(end) or _begins(before, paragraph, is_list)
        ):
            yield paragraph, end
            paragraph, end, is_list = "", "", False
        paragraph, end = f"{paragraph}{end}{line}", line_end
        is_list = is_list or bool(before)
    yield paragraph, end


def _begins(before: str, paragraph: str, is_list: bool) -> bool:
    """Whether a line with this marker ends the paragraph above, which is a list's item or not."""
    if before in ("–", "—", "―"):  # between words, or of a dialogue
        return paragraph.rstrip().endswith((*".!?…:;。！？", '"', "»", "”", "'"))
    return bool(before) and (is_list or not before.endswith(".") or before in ("1.", "1.1."))


def _is_blank(end: str) -> bool:
    """Whether a run of line ends has an empty line in it."""
    return len(end.replace("\r\n", "\n")) > 1


def _parts(line: str, numbers: Callable[[], Collection[int]]) -> Iterator[Segment]:
    before = marker(line, numbers)
    core = line[len(before) :].rstrip()
    if not core:
        yield from [Segment(line, is_translatable=False)] if line else []
        return
    if before:
        yield Segment(before, is_translatable=False)
    yield Segment(core, is_translatable=True)
    if len(before) + len(core) < len(line):
        yield Segment(line[len(before) + len(core) :], is_translatable=False)


# -- blocks to sentences -------------------------------------------------------------------------


def sentences(block: Segment, language: str, rules: TextRules) -> list[Segment]:
    """Cut a block into its sentences, and what is before, between and after them.

    No span is cut, nor does what is in one end a sentence. A sentence without a letter outside its
    spans stays as it is. Line ends within a sentence become tags, so that as many come out; in HTML
    they are white space.
    """
    if not block.is_translatable:
        return [block]
    has_line_ends = _END.search(block.text) is not None
    cuts = set[int]()
    if rules.sentences != "whole":
        cuts.update(_sentence_ends(_worded(block), language))
    if has_line_ends and rules.sentences == "split" and rules.markup != "html":
        cuts.update(_line_ends(block))
    found = pieces(block, sorted(cuts))
    return [_on_one_line(piece, rules) for piece in found] if has_line_ends else found


def _worded(block: Segment) -> str:
    """Return the text with a word for each span, so that a URL's dots end no sentence."""
    text = block.text.translate(_TO_SPACES)
    if not block.spans:
        return text
    parts, at = list[str](), 0
    for span in block.spans:
        parts += text[at : span.start], "X".ljust(span.end - span.start, "x")
        at = span.end
    return "".join((*parts, text[at:]))


def _sentence_ends(text: str, language: str) -> Iterator[int]:
    found = sentencex.segment(language, text)
    if len(found) == 1 or "".join(found) != text:  # of the latter it promises nothing
        return
    has_ordinals = _WITH_ORDINALS.match(language)
    at = start = 0
    for sentence in found[:-1]:
        at += len(sentence)
        number = _NUMBER_AT_END.search(text, max(start, at - _TAIL), at)
        if number and (has_ordinals or not text[start : number.start()].strip()):
            continue  # or it would be cut off from what it counts
        yield at
        start = at


def _line_ends(block: Segment) -> list[int]:
    """Return where lines start, but for the first."""
    found = (line_end.end() for line_end in _outside(_END.finditer(block.text), block.spans))
    return [at for at in found if at < len(block.text)]


def _outside(matches: Iterable[re.Match[str]], spans: Sequence[Span]) -> Iterator[re.Match[str]]:
    """Yield the matches that touch no span; both are in order."""
    ahead = iter([*spans, None])
    span = next(ahead)
    for match in matches:
        while span and span.end <= match.start():
            span = next(ahead)
        if span is None or match.end() <= span.start:
            yield match


def _on_one_line(piece: Segment, rules: TextRules) -> Segment:
    """Put tags in the places of line ends, each after a space where words need one."""
    if not piece.is_translatable or not _END.search(piece.text):
        return piece
    if rules.markup == "html":
        return replace(piece, text=piece.text.translate(_TO_SPACES))
    parts, length, at = list[str](), 0, 0
    shifts, added = [(0, 0)], list[tuple[int, int, Tag]]()
    for found in _outside(_BREAK.finditer(piece.text), piece.spans):
        beside = piece.text[found.start() - 1], piece.text[found.end()]
        space = "" if all(map(_UNSPACED.match, beside)) else " "
        length += found.start() - at + len(space)
        parts += piece.text[at : found.start()], space
        at = found.end()
        shifts.append((at, length))
        added.append((at, 0, Tag(length, found[1], "void", "line end")))

    def moved(place: int) -> int:
        index = bisect_right(shifts, place, key=itemgetter(0)) - 1
        old, new = shifts[index]
        is_last = index + 1 == len(shifts)
        return new + place - old if is_last else min(new + place - old, shifts[index + 1][1])

    for span in piece.spans:
        if span.is_term and (within := _BREAK.search(piece.text, span.start, span.end)):
            added.append((span.end, 0, Tag(moved(span.end), within[1], "void", "line end")))
    tags = [(tag.at, 1, replace(tag, at=moved(tag.at))) for tag in piece.tags]
    return replace(
        piece,
        text="".join((*parts, piece.text[at:])).translate(_TO_SPACES),
        spans=tuple(
            replace(span, start=moved(span.start), end=moved(span.end)) for span in piece.spans
        ),
        tags=tuple(tag for *_, tag in sorted([*tags, *added], key=itemgetter(0, 1))),
    )


# -- sentences too long for the model ------------------------------------------------------------


def clauses(segment: Segment, fits: Callable[[Segment], bool]) -> list[Segment]:
    """Cut a sentence until each piece fits, where it reads best and about in halves each time.

    Args:
        fits: whether the model takes a segment; called about twice for each piece that comes out.

    A span is never cut; one alone in its piece has no words for the model, and stays as it is.

    Raises:
        ValueError: says which text does not fit though it cannot be cut.
    """
    ahead, done = [segment], list[Segment]()
    while ahead:
        piece = ahead.pop()
        if not piece.is_translatable or fits(piece):
            done.append(piece)
            continue
        at = boundary(piece.text, piece.spans)
        if at is None:
            shown = piece.text if len(piece.text) <= _SHOWN else f"{piece.text[:_SHOWN]}..."
            raise ValueError(f"'{shown}' is longer than the model takes, and cannot be cut")
        ahead += reversed(pieces(piece, [at]))
    return done
