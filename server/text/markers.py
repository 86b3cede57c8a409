"""Markers: what stands before the words of a line, such as an indent or a list's number."""

import re
from collections.abc import Callable, Collection

_INDENT = r"\s*+"
# A letter or a Roman number with a full stop is no marker: "I. e.", "A. Smith".
_BULLET = (
    r">++\s|#{1,6}\s|[-*+]\s|[•‣⁃◦▪▫●○■□◆◇►▶➢➤✓✔✗✘☐☑☒·∙–]\s"
    r"|・|[—―](?=\S)|[—―]\s|\[[ xX]\]\s"
)
_NUMBERED = (
    r"\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})\)\s"  # 1) (1) a) (a) iv)
    r"|\d{1,3}(?:\.\d{1,3}){2,5}\.?\s(?!\s*+[^\W\d_A-Z])"  # 1.2.3
    r"|\d{1,3}\.\d{1,3}\.\s"  # 1.2.
)
_MARKER = re.compile(rf"{_INDENT}(?:(?:{_BULLET}|{_NUMBERED})\s*+)*+")
_ORDINAL = re.compile(r"(\d{1,3})\.\s++")
_MONTH = re.compile(
    r"(?:J[aä]nner|Januar|Februar|Feber|März|April|Mai|Juni|Juli|August|September|Oktober"
    r"|November|Dezember)\b"
)
_FEW_WORDS = 3


def marker(line: str, numbers: Callable[[], Collection[int]]) -> str:
    """Return the characters at a line's start that are not its words, maybe none.

    A number with a full stop may be a word: `3. Oktober`, `1. FC Köln`. It is a marker where the
    text has a line with the number before or after it, or where three words or more follow, or a
    script without capitals; never before a small letter or the name of a German month.

    Args:
        numbers: returns the numbers with full stops that lines of this text start with.
    """
    found = _MARKER.match(line)
    end = found.end() if found else 0
    ordinal = _ORDINAL.match(line, end)
    if ordinal and _counts(int(ordinal[1]), line[ordinal.end() :], numbers):
        end = ordinal.end()
    return line[:end]


def number(line: str) -> int | None:
    """Return the number with a full stop that a line starts with, if it does."""
    found = _ORDINAL.match(line.lstrip())
    return int(found[1]) if found else None


def _counts(number: int, words: str, numbers: Callable[[], Collection[int]]) -> bool:
    if words[:1].islower() or _MONTH.match(words):
        return False
    if not words[:1].isupper() or len(words.split(None, _FEW_WORDS)) >= _FEW_WORDS:
        return True
    return number - 1 in numbers() or number + 1 in numbers()
