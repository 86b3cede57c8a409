"""Projection: spans and inline tags of a segment put into its target, each exactly once."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from server.text import references
from server.text.alignment import Attention, Range, token_ranges, words
from server.text.masking import Masked, StandIn
from server.text.placing import Places, placed

_SIGNS = {  # signs that may become one another
    sign: group
    for group in (
        "\"'\u201e\u201c\u201d\u201a\u2018\u2019\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f",
        ".\u3002\u0964\u06d4",
        ",\uff0c\u3001\u060c",
        "?\uff1f\u061f",
        "!\uff01",
        ":\uff1a",
        ";\uff1b",
        "-\u2013\u2014\u2015",
        "(\uff08",
        ")\uff09",
    )
    for sign in group
}
_COPIED = 0.5  # attention from which on a word that looks like a stand-in is one, misspelt

_CODE = re.compile(r"[A-Z0-9]{2,}(?:-[A-Z0-9]+)*-?")  # as stand-ins are written
_STUTTER = re.compile(r"(?:-?(?:[A-Z][A-Z0-9]|[0-9])[A-Z0-9]*(?![^\W\d_A-Z]))+")


@dataclass(frozen=True, slots=True)
class Restored:
    """A segment's target with everything in it.

    Attributes:
        misplaced: texts of spans that the model did not place, so that their place is a guess.
    """

    text: str
    misplaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A word, a sign or white space of the target.

    Attributes:
        row: weights over the source's words; None for white space.
        stand_in: which one it is, if it is one.
    """

    text: str
    row: list[float] | None
    stand_in: int | None = None


def restore(
    masked: Masked,
    target: Sequence[str],
    source: Sequence[str],
    weights: Sequence[Sequence[float]],
) -> Restored:
    """Put the spans' texts in place of their stand-ins, and the tags where their words went.

    Args:
        target: the text of each generated token.
        source: the source's tokens, as the vocabulary has them.
        weights: for each token of the target, its attention over the source's tokens; rows that
            are missing are taken from the tokens beside.
    """
    return _Restorer(masked, target, source, weights).restored()


class _Restorer:
    def __init__(
        self,
        masked: Masked,
        target: Sequence[str],
        source: Sequence[str],
        weights: Sequence[Sequence[float]],
    ) -> None:
        self._masked = masked
        self._target = "".join(target)
        self._words = _source_words(masked)
        self._own = [self._words.index((each.start, each.end)) for each in masked.stand_ins]
        ranges = token_ranges(source, masked.text)
        self._attention = Attention(target, ranges, self._words, weights)
        self._signs = _signs(masked.text, self._words)
        self._sent = _without_stand_ins(masked).casefold()

    def restored(self) -> Restored:
        pieces = list(self._pieces(self._occurrences()))
        pieces = self._without_spaces(pieces)
        present = {piece.stand_in for piece in pieces}
        missing = [i for i in range(len(self._masked.stand_ins)) if i not in present]
        for number in missing:
            self._insert(pieces, number)
        pieces = self._without_remains(pieces)
        stand_ins = self._masked.stand_ins
        return Restored(self._joined(pieces), tuple(stand_ins[i].text for i in missing))

    # -- stand-ins ---------------------------------------------------------------------------

    def _occurrences(self) -> dict[Range, int | None]:
        """Return where stand-ins are in the target, and which; None for one too many."""
        found: dict[Range, int | None] = {}
        stand_ins = self._masked.stand_ins
        for number in sorted(range(len(stand_ins)), key=lambda i: -len(stand_ins[i].surrogate)):
            places = _search(self._target, stand_ins[number].surrogate, found)
            rows = [self._attention.row(*place) for place in places]
            best = max(range(len(rows)), key=lambda i: rows[i][self._own[number]], default=None)
            found |= {place: number if i == best else None for i, place in enumerate(places)}
        return {self._with_remains(place, found): number for place, number in found.items()}

    def _with_remains(self, place: Range, others: Iterable[Range]) -> Range:
        """Return where a stand-in ends with what a model stuttered behind it: `-BX-BX`."""
        start, end = place
        match = _STUTTER.match(self._target, end)
        if match is None or not self._is_of_stand_ins(match[0]):
            return place
        following = min((other[0] for other in others if other[0] >= end), default=match.end())
        return start, min(match.end(), following)

    def _without_remains(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """Drop words that are but pieces of stand-ins, which a model made of them besides."""
        kept: list[_Piece] = []
        for piece in pieces:
            if self._is_remains(piece):
                if kept and kept[-1].row is None:
                    kept.pop()
                continue
            kept.append(piece)
        return kept

    def _is_remains(self, piece: _Piece) -> bool:
        if piece.row is None or piece.stand_in is not None or not _CODE.fullmatch(piece.text):
            return False
        most = max(range(len(piece.row)), key=piece.row.__getitem__, default=None)
        return most in self._own and self._is_of_stand_ins(piece.text)

    def _is_of_stand_ins(self, text: str) -> bool:
        """Whether `text` is made of stand-ins' letters, and nothing that was sent."""
        codes = [each.surrogate for each in self._masked.stand_ins]
        pairs = {code[i : i + 2] for code in codes for i in range(len(code) - 1)}
        is_alike = any(pair in text for pair in pairs) or {*text} <= {"-", *"".join(codes)}
        return is_alike and text.casefold() not in self._sent

    def _pieces(self, occurrences: dict[Range, int | None]) -> Iterator[_Piece]:
        """Cut the target into words, signs, white space and stand-ins; drop those too many."""
        kept: list[_Piece] = []
        read = 0
        for place in sorted(occurrences):
            kept += self._plain(read, place[0])
            number, read = occurrences[place], place[1]
            if number is not None:
                kept.append(_Piece(self._target[slice(*place)], self._certain(number), number))
            elif kept and kept[-1].row is None:
                kept.pop()
            elif self._target[read : read + 1].isspace():
                read += 1
        return iter([*kept, *self._plain(read, len(self._target))])

    def _plain(self, start: int, end: int) -> Iterator[_Piece]:
        text, read = self._target[start:end], 0
        for first, last in words(text):
            if read < first:
                yield _Piece(text[read:first], None)
            yield from self._split(text[first:last], start + first)
            read = last
        if read < len(text):
            yield _Piece(text[read:], None)

    def _split(self, word: str, start: int) -> Iterator[_Piece]:
        """Yield a word, in parts where a tag is within the same word of the source."""
        row = self._attention.row(start, start + len(word))
        if (sign := _SIGNS.get(word)) is not None:
            yield _Piece(word, self._of_sign(row, self._signs.get(sign, ())))
        elif not word[0].isalnum() and len(word) == 1:
            yield _Piece(word, self._of_sign(row, self._signs.get(word, ())))
        elif parts := self._equal_parts(word, row):
            for number in parts:
                first, last = self._words[number]
                certain = [0.0] * len(row)
                certain[number] = 1.0
                yield _Piece(self._masked.text[first:last], certain)
        else:
            yield _Piece(word, row)

    def _equal_parts(self, word: str, row: list[float]) -> range:
        """Return the words of the source that together are this one, if it is them."""
        if not any(row):
            return range(0)
        most = max(range(len(row)), key=row.__getitem__)
        for first in range(max(0, most - 8), most + 1):
            for last in range(most + 1, min(len(row), most + 8) + 1):
                start, end = self._words[first][0], self._words[last - 1][1]
                if last - first > 1 and self._masked.text[start:end] == word:
                    return range(first, last)
        return range(0)

    def _of_sign(self, row: list[float], same: Sequence[int]) -> list[float]:
        """Return the weights of a sign: only signs of its kind can have become it."""
        if not same:
            return [0.0] * len(row)
        total = sum(row[number] for number in same)
        kept = [0.0] * len(row)
        for number in same:
            kept[number] = row[number] / total if total else 1 / len(same)
        return kept

    def _certain(self, number: int) -> list[float]:
        row = [0.0] * len(self._words)
        row[self._own[number]] = 1.0
        return row

    def _without_spaces(self, pieces: list[_Piece]) -> list[_Piece]:
        """Take back the spaces that were put beside stand-ins for the model only."""
        dropped = set()
        for place, piece in enumerate(pieces):
            if piece.stand_in is not None:
                each = self._masked.stand_ins[piece.stand_in]
                dropped |= {place - 1} if each.is_joined_before else set()
                dropped |= {place + 1} if each.is_joined_after else set()
        return [p for i, p in enumerate(pieces) if i not in dropped or p.row is not None]

    def _insert(self, pieces: list[_Piece], number: int) -> None:
        """Put a stand-in that the target lacks where attention points to it."""
        own = self._own[number]
        weights = [0.0 if piece.row is None else piece.row[own] for piece in pieces]
        place = max(range(len(pieces)), key=weights.__getitem__, default=0)
        each, row = self._masked.stand_ins[number], self._certain(number)
        if not any(weights):
            place = len(pieces)
        elif self._is_misspelt(pieces[place], each, weights[place]):
            pieces[place] = _Piece(each.surrogate, row, number)
            return
        before, after = pieces[:place][-1:], pieces[place : place + 1]
        new = [_Piece(each.surrogate, row, number)]
        if before and _touches(before[0], -1):
            new.insert(0, _Piece(" ", None))
        if after and _touches(after[0], 0):
            new.append(_Piece(" ", None))
        pieces[place:place] = new

    def _is_misspelt(self, piece: _Piece, each: StandIn, weight: float) -> bool:
        is_alike = piece.text[:1].casefold() == each.surrogate[:1].casefold()
        is_new = piece.text.casefold() not in self._masked.text.casefold()
        return piece.stand_in is None and is_alike and is_new and weight >= _COPIED

    # -- tags --------------------------------------------------------------------------------

    def _joined(self, pieces: Sequence[_Piece]) -> str:
        places = Places(self._words, [piece.row for piece in pieces], self._masked.text)
        tags: dict[int, str] = {}
        for place, tag in placed(self._masked.tags, places):
            tags[place] = tags.get(place, "") + tag.raw
        texts = (tags.get(i, "") + self._written(piece) for i, piece in enumerate(pieces))
        return "".join(texts) + tags.get(len(pieces), "")

    def _written(self, piece: _Piece) -> str:
        if piece.stand_in is not None:
            return self._masked.stand_ins[piece.stand_in].text
        return references.written(piece.text) if self._masked.escapes else piece.text


def _touches(piece: _Piece, end: int) -> bool:
    return piece.stand_in is not None or piece.text[end].isalnum()


def _search(text: str, surrogate: str, taken: Iterable[Range]) -> list[Range]:
    """Return where a stand-in is: alone, or else with letters beside it, or in other case."""
    exact = re.escape(surrogate)
    for pattern, flags in ((rf"(?<!\w){exact}(?!\w)", 0), (exact, 0), (exact, re.IGNORECASE)):
        places = [match.span() for match in re.finditer(pattern, text, flags)]
        if free := [place for place in places if not _overlaps(place, taken)]:
            return free
    return []


def _overlaps(place: Range, others: Iterable[Range]) -> bool:
    return any(place[0] < end and start < place[1] for start, end in others)


def _without_stand_ins(masked: Masked) -> str:
    text, read = "", 0
    for each in masked.stand_ins:
        text += masked.text[read : each.start] + " "
        read = each.end
    return text + masked.text[read:]


def _source_words(masked: Masked) -> list[Range]:
    """Return the source's words, parted at tags; a stand-in is one word."""
    cuts = sorted({tag.at for tag in masked.tags})
    found: list[Range] = []
    read = 0
    for each in (*masked.stand_ins, None):
        end = len(masked.text) if each is None else each.start
        for first, last in words(masked.text[read:end]):
            start, stop = read + first, read + last
            inner = cuts[bisect_right(cuts, start) : bisect_left(cuts, stop)]
            found += zip([start, *inner], [*inner, stop], strict=True)
        if each is not None:
            found.append((each.start, each.end))
            read = each.end
    return found


def _signs(text: str, places: Sequence[Range]) -> dict[str, list[int]]:
    """Return which of the source's words are signs of each kind."""
    found: dict[str, list[int]] = {}
    for number, (start, end) in enumerate(places):
        sign = text[start:end]
        found.setdefault(_SIGNS.get(sign, sign), []).append(number)
    return found
