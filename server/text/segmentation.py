"""Text cut into what is translated and what stays as it is, without losing a character."""

import re

import sentencex

from server.text.segments import Segment

_LINE = re.compile(r"[^\r\n]+|[\r\n]+")


def segment(text: str, language: str) -> list[Segment]:
    """Cut `text` at line ends and between sentences.

    White space around sentences, blank lines, and sentences without a letter (numbers, emoji,
    punctuation) are not translatable.
    """
    pieces: list[Segment] = []
    for line in _LINE.findall(text):
        for sentence in sentencex.segment(language, line):
            pieces += _with_margins(sentence)
    return pieces if "".join(piece.text for piece in pieces) == text else _by_line(text)


def _by_line(text: str) -> list[Segment]:
    """Cut at line ends only: for text that the sentence splitter does not give back whole."""
    return [piece for line in _LINE.findall(text) for piece in _with_margins(line)]


def _with_margins(sentence: str) -> list[Segment]:
    core = sentence.strip()
    if not any(map(str.isalpha, core)):
        return [Segment(sentence, is_translatable=False)]
    start = sentence.index(core)
    margins = sentence[:start], sentence[start + len(core) :]
    before, after = (Segment(margin, is_translatable=False) for margin in margins)
    return [s for s in (before, Segment(core, is_translatable=True), after) if s.text]
