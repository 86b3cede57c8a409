"""Alignment: which words of a source each word of a target stands for, by attention."""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

Range = tuple[int, int]  # characters from, up to

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARKS = str.maketrans("", "", "\u2581\u0120\u010a")  # of SentencePiece and of byte-level BPE
_AHEAD = 4  # characters that a token may be out of step, for each of its own
_FOREIGN = 16
_ALONE = re.compile(  # scripts that write no spaces between words
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_JOINERS = frozenset("'\u2019-.,")


def words(text: str) -> list[Range]:
    """Return where words and signs are: runs of letters, digits and marks, and all else alone."""
    found: list[Range] = []
    start = 0
    while start < len(text):
        end = start + 1
        if text[start].isspace():
            start = end
            continue
        while _belongs(text, start, end):
            end += 1
        found.append((start, end))
        start = end
    return found


def _belongs(text: str, start: int, end: int) -> bool:
    """Whether the character at `end` goes on with the word that starts at `start`."""
    if end >= len(text) or not _is_letter(text[start]) or _ALONE.match(text[start]):
        return end < len(text) and unicodedata.category(text[end]).startswith("M")
    if _is_letter(text[end]):
        return _ALONE.match(text[end]) is None
    following = text[end + 1 : end + 2]
    return text[end] in _JOINERS and _is_letter(text[end - 1]) and following.isalnum()


def _is_letter(character: str) -> bool:
    if character.isalnum() or character == "_":
        return True
    return not character.isascii() and unicodedata.category(character) in ("Mn", "Mc", "Cf")


def token_ranges(tokens: Sequence[str], text: str) -> list[Range]:
    """Return which characters of `text` each token of the vocabulary stands for; none if empty.

    Tokens are followed through the text; those that are not in it, a language's for example, stand
    for nothing. Where normalisation wrote other characters, the place is approximate.
    """
    letters = [
        (letter, place)
        for place, character in enumerate(text)
        if not character.isspace()
        for letter in _folded(character)
    ]
    plain = "".join(letter for letter, _ in letters)
    places = [place for _, place in letters]
    surfaces = list(_surfaces(tokens))
    found = _followed(surfaces, plain)
    return [(places[a], places[b - 1] + 1) if a < b else (0, 0) for a, b in found]


def _followed(surfaces: Sequence[str | None], plain: str) -> list[Range]:
    """Find the tokens' letters in the text's, one behind the other."""
    found: list[Range] = []
    skipped = _foreign(surfaces, plain)
    lost: list[int] = []  # tokens since the last one that was found
    read = 0
    for number, surface in enumerate(surfaces):
        if surface is None:  # a byte that goes on with a character
            found.append(found[-1] if found else (0, 0))
            continue
        ahead = read + len(surface) + _AHEAD * (1 + len(surface))
        place = plain.find(surface, read, ahead) if surface and number >= skipped else -1
        if place < 0:
            found.append((0, 0))
            lost.append(number)
            continue
        if read and place > read:  # what the lost ones stand for together
            for each in lost:
                found[each] = (read, place)
        lost, read = [], place + len(surface)
        found.append((place, read))
    return found


def _foreign(surfaces: Sequence[str | None], plain: str) -> int:
    """Return how many tokens at the beginning are not of the text, as an instruction's are."""
    letters = [surface or "" for surface in surfaces]
    for number in range(min(len(letters), _FOREIGN)):
        rest = "".join(letters[number : number + _FOREIGN])[:_FOREIGN]
        if rest and plain.startswith(rest[: len(plain)]):
            return number
    return 0


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _surfaces(tokens: Sequence[str]) -> Iterator[str | None]:
    """Yield the letters of each token, a character of several bytes with its first byte."""
    values = [int(m[1], 16) if (m := _BYTE.fullmatch(token)) else None for token in tokens]
    for number, (token, value) in enumerate(zip(tokens, values, strict=True)):
        if value is None:
            yield _folded(token.translate(_SPACE_MARKS))
        elif value & 0xC0 == 0x80:
            yield None
        else:
            run = bytes(v for v in values[number : number + 4] if v is not None)
            yield _folded(run.decode("utf-8", "ignore")[:1])


class Attention:
    """How much each character range of a target attends to each word of the source."""

    def __init__(
        self,
        target: Sequence[str],
        source: Sequence[Range],
        words: Sequence[Range],
        weights: Sequence[Sequence[float]],
    ) -> None:
        """Read the weights once.

        Args:
            target: the text of each target token.
            source: the characters that each source token stands for.
            words: the source's words, as characters; in order, not overlapping.
            weights: a row for each target token, over source tokens; missing ones are taken from
                the tokens beside.
        """
        self._ends = list(accumulate(map(len, target)))
        self._words = len(words)
        shares = [list(_shares(tokens, words)) for tokens in source]
        rows = [_row(row, shares, len(words)) for row in weights[: len(target)]]
        self._rows = _filled([*rows, *[None] * (len(target) - len(rows))], len(words))

    def row(self, start: int, end: int) -> list[float]:
        """Return the weights of a target's characters over the source's words; their sum is 1.

        It is 0 where nothing is known.
        """
        total = [0.0] * self._words
        begin = 0
        for token, stop in enumerate(self._ends):
            shared = min(end, stop) - max(start, begin)
            if shared > 0:
                for word, weight in enumerate(self._rows[token]):
                    total[word] += shared * weight
            begin = stop
        return _normalised(total)


def _shares(token: Range, words: Sequence[Range]) -> Iterator[tuple[int, float]]:
    """Yield the words that a token stands for, and how much of it each one is."""
    size = token[1] - token[0]
    number = bisect_right(words, token[0], key=lambda word: word[1])
    while number < len(words) and words[number][0] < token[1]:
        start, end = words[number]
        shared = min(end, token[1]) - max(start, token[0])
        if shared > 0:
            yield number, shared / size
        number += 1


def _row(
    weights: Sequence[float], shares: Sequence[Sequence[tuple[int, float]]], words: int
) -> list[float] | None:
    """Return a token's weights over words; None where it has none."""
    row = [0.0] * words
    for weight, parts in zip(weights, shares, strict=False):
        if math.isfinite(weight) and weight > 0:
            for word, share in parts:
                row[word] += weight * share
    row = _normalised(row)
    return row if any(row) else None


def _normalised(row: list[float]) -> list[float]:
    total = math.fsum(row)
    return [weight / total for weight in row] if 0 < total < math.inf else [0.0] * len(row)


def _filled(rows: Sequence[list[float] | None], words: int) -> list[list[float]]:
    """Give those without a row that of the token before, or else of the next that has one."""
    last = next((row for row in rows if row is not None), [0.0] * words)
    filled = []
    for row in rows:
        last = row if row is not None else last
        filled.append(last)
    return filled
