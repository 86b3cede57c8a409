"""Cutting: from a request's text to segments, as its rules say."""

from server.text.markup import blocks
from server.text.protection import protect
from server.text.rules import TextRules
from server.text.segmentation import lines, sentences
from server.text.segments import Segment


def cut(text: str, language: str, rules: TextRules) -> list[Segment]:
    """Cut `text`, which is in `language`, into segments; what they stand for is the text."""
    return [
        piece
        for block in _blocks(text, rules)
        for piece in sentences(protect(block, rules), language, rules)
    ]


def words(text: str, rules: TextRules) -> str:
    """Return what there is to read in `text`: without its markup, where it has one."""
    if rules.markup is None:
        return text
    return "\n".join(block.text for block in blocks(text, rules) if block.is_translatable)


def _blocks(text: str, rules: TextRules) -> list[Segment]:
    return lines(text, rules) if rules.markup is None else blocks(text, rules)
