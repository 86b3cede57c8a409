"""Segments: the pieces that a text is cut into, and what a piece carries besides its words."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a segment that the model does not word; `text` stands for them in the target.

    Attributes:
        start, end: in characters of the segment's text.
        text: exactly what the target holds instead, once; escaped already where targets are.
        is_term: whether a glossary asks for it: then the source holds another text.
    """

    start: int
    end: int
    text: str
    is_term: bool = False


@dataclass(frozen=True, slots=True)
class Tag:
    """Inline markup that stands before the character `at` of a segment.

    Attributes:
        raw: as it was sent; it comes out so, once.
        name: what an end tag is matched with.
    """

    at: int
    raw: str
    kind: Literal["open", "close", "void"]
    name: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a text; what pieces stand for, put together, is the text.

    Attributes:
        text: what is to be translated, without markup, character references read; of a piece that
            is not translatable, what comes out, as it was sent.
        spans: in order, not overlapping.
        tags: in order of appearance, those between two equal characters too.
        escapes: whether the target is text within markup, so that `<`, `>` and `&` are escaped.
    """

    text: str
    is_translatable: bool
    spans: tuple[Span, ...] = ()
    tags: tuple[Tag, ...] = ()
    escapes: bool = False
