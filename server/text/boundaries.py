"""Boundaries: where a sentence that is too long for the model is cut in two."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from server.text.segments import Span

# Better ones first: after a clause, after a phrase, between words.
_CLAUSE = re.compile(r"[;:.!?…](?=\s)|[；：。！？]|\s(?=[–—-]\s)|—")
_PHRASE = re.compile(r"[,،](?=\s)|[，、]|(?<=[)\]»”])(?=\s)|(?<=\s)(?=[(\[«“])")
_WORD = re.compile(r"(?=\s)")
_ZWJ = "\u200d"


def boundary(text: str, spans: Sequence[Span]) -> int | None:
    """Return where to cut `text` in two, as even as it may be; None if it is in one span.

    The end of a clause, of a phrase, or of a word is taken if it is in the middle half; else any
    space; else a place between characters as they are seen (a letter with its accents, an emoji
    with its skin colour); else one between code points.
    """
    length = len(text)
    low, high = length // 4, length - length // 4
    for pattern in (_CLAUSE, _PHRASE, _WORD):
        if at := _middlemost(text, spans, (m.end() for m in pattern.finditer(text, low, high))):
            return at
    return (
        _middlemost(text, spans, (m.end() for m in _WORD.finditer(text)))
        or _middlemost(text, spans, _characters(text))
        or _middlemost(text, spans, range(length))
    )


def _middlemost(text: str, spans: Sequence[Span], places: Iterable[int]) -> int | None:
    """Return the place nearest to the middle that parts two texts and is within no span."""
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    middle, best, ahead = len(text) / 2, None, iter([*spans, None])
    span = next(ahead)
    for at in places:
        while span and span.end <= at:
            span = next(ahead)
        if not first < at < last or (span is not None and span.start < at):
            continue
        if best is None or abs(at - middle) < abs(best - middle):
            best = at
    return best


def _characters(text: str) -> Iterator[int]:
    """Yield where the characters that are seen start, each of which may be several code points."""
    before, flag_halves = "", 0
    for at, after in enumerate(text):
        flag_halves = flag_halves + 1 if "\U0001f1e6" <= after <= "\U0001f1ff" else 0
        is_second_half = flag_halves and flag_halves % 2 == 0
        if not (is_second_half or before == _ZWJ or _joins(after)):
            yield at
        before = after


def _joins(character: str) -> bool:
    """Whether it is seen together with the one before it."""
    return (
        unicodedata.category(character).startswith("M")
        or character == _ZWJ
        or "\u1160" <= character <= "\u11ff"  # the vowel or the end of a Korean syllable
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # a colour of skin
        or "\U000e0020" <= character <= "\U000e007f"  # a part of a flag
    )
