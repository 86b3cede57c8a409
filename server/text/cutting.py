"""Cutting: from a request's text to segments, as its rules say."""

import re
from collections.abc import Iterable, Iterator

from server.text.markup import blocks
from server.text.protection import protect
from server.text.rules import TextRules
from server.text.scripts import scripts
from server.text.segmentation import lines, sentences
from server.text.segments import Segment

_UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff9f]")
_UNSPACED_SCRIPTS = frozenset({"Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr"})


def cut(text: str, language: str, rules: TextRules) -> list[Segment]:
    """Cut `text`, which is in `language`, into segments; what they stand for is the text."""
    return [
        piece
        for block in _blocks(text, rules)
        for piece in sentences(protect(block, rules), language, rules)
    ]


def spaced(pieces: Iterable[Segment], target: str) -> Iterator[Segment]:
    """Yield them with a space between what touches because the source's script writes none.

    Otherwise a target that is written with spaces would have none behind its full stops.
    """
    is_spaced = _UNSPACED_SCRIPTS.isdisjoint(scripts(target))
    last = ""
    for piece in pieces:
        touches = is_spaced and last and piece.is_translatable
        if touches and (_UNSPACED.match(last[-1]) or _UNSPACED.match(piece.text)):
            yield Segment(" ", is_translatable=False)
        last = piece.text if piece.is_translatable else ""
        yield piece


def words(text: str, rules: TextRules) -> str:
    """Return what there is to read in `text`: without its markup, where it has one."""
    if rules.markup is None:
        return text
    return "\n".join(block.text for block in blocks(text, rules) if block.is_translatable)


def _blocks(text: str, rules: TextRules) -> list[Segment]:
    return lines(text, rules) if rules.markup is None else blocks(text, rules)
