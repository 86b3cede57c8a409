"""Cutting: from a request's text to segments, as its rules say."""

from server.text.rules import TextRules
from server.text.segmentation import segment
from server.text.segments import Segment


def cut(text: str, language: str, rules: TextRules) -> list[Segment]:
    """Cut `text`, which is in `language`, into segments."""
    return segment(text, language)
