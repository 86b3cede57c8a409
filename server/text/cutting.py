"""Cutting: from a request's text to segments, as its rules say."""

from server.text.protection import protect
from server.text.rules import TextRules
from server.text.segmentation import lines, sentences
from server.text.segments import Segment


def cut(text: str, language: str, rules: TextRules) -> list[Segment]:
    """Cut `text`, which is in `language`, into segments; what they stand for is the text."""
    blocks = lines(text, rules)  # with rules.markup: markup.blocks(text, rules)
    return [
        piece for block in blocks for piece in sentences(protect(block, rules), language, rules)
    ]
