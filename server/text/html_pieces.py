"""Pieces of an html document, cut between blocks, so that one is no longer than a text may be."""

from collections.abc import Iterator
from itertools import accumulate

from server.text.elements import Elements
from server.text.markup_tokens import tokens
from server.text.rules import TextRules


def pieces(document: str, max_characters: int) -> Iterator[str]:
    """Yield the document in pieces, as few as possible; what cannot be cut may be longer.

    A piece begins where a block begins or after one has ended, and never within inline markup or
    an element that is not translated, so that it is read as it would be within the whole.
    """
    if len(document) <= max_characters:
        yield document
        return
    begin = end = 0
    for cut in [*_cuts(document), len(document)]:
        if cut - begin > max_characters and end > begin:
            yield document[begin:end]
            begin = end
        end = cut
    if begin < len(document):
        yield document[begin:]


def _cuts(document: str) -> Iterator[int]:
    """Yield where it may be cut, in order."""
    found = tokens(document, "html")
    elements = Elements(found, TextRules(markup="html"))
    begins = [*accumulate((len(token.raw) for token in found), initial=0)]
    position = 0
    while position < len(found):
        kind, is_block = found[position].kind, position in elements.parting
        if is_block and kind != "close":
            yield begins[position]
        if kind == "open" and (not is_block or elements.is_untouched(position)):
            position = elements.stop(position)  # its end tag is in it
            kind = "close"
        else:
            position += 1
        if is_block and kind == "close":
            yield begins[position]
