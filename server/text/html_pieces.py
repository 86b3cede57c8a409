"""Pieces of an html document, cut between blocks, so that one is no longer than a text may be."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from itertools import accumulate

_BLOCK_NAMES = """
    address article aside blockquote body center dd details dialog div dl dt fieldset figcaption
    figure footer form h1 h2 h3 h4 h5 h6 header hr html li main menu nav ol p section summary
    table tbody td tfoot th thead tr ul
"""
_VOID_NAMES = "area base br col embed hr img input link meta param source track wbr"
_BLOCKS, _VOID = frozenset(_BLOCK_NAMES.split()), frozenset(_VOID_NAMES.split())


def pieces(document: str, max_characters: int) -> Iterator[str]:
    """Yield the document in pieces, as few as possible; what cannot be cut may be longer.

    A piece begins where a block begins or after one has ended, and never within an element that is
    not to be translated, so that each piece is read as it would be within the whole.
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
    yield document[begin:]


def _cuts(document: str) -> list[int]:
    scanner = _Scanner(document)
    with suppress(AssertionError):  # the parser's, about a malformed declaration
        scanner.feed(document)
    # What follows an unfinished tag or comment stays whole: to close the parser would make it look
    # for the end again from each `<`, which takes hours for a hostile document.
    return sorted(scanner.cuts)


class _Scanner(HTMLParser):
    """Finds where blocks begin and end while only blocks are open."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=False)
        self.cuts: set[int] = set()
        self._document = document
        self._begins = [0, *accumulate(len(line) + 1 for line in document.split("\n"))]
        self._open: list[tuple[str, bool]] = []  # with whether it may not be cut within
        self._names: Counter[str] = Counter()
        self._kept = 0  # open elements that may not

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS and not self._kept:
            self.cuts.add(self._at())
        if tag not in _VOID:
            is_kept = tag not in _BLOCKS or _is_kept(dict(attrs))
            self._open.append((tag, is_kept))
            self._names[tag] += 1
            self._kept += is_kept

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Leave nothing open, as in xhtml."""

    def handle_endtag(self, tag: str) -> None:
        if not self._names[tag]:
            return
        name = ""
        while name != tag:  # what is open within it ends with it
            name, is_kept = self._open.pop()
            self._names[name] -= 1
            self._kept -= is_kept
        end = self._document.find(">", self._at()) + 1
        if tag in _BLOCKS and end and not self._kept:
            self.cuts.add(end)

    def _at(self) -> int:
        line, column = self.getpos()
        return self._begins[line - 1] + column


def _is_kept(attributes: dict[str, str | None]) -> bool:
    classes = (attributes.get("class") or "").split()
    return (attributes.get("translate") or "").lower() == "no" or "notranslate" in classes
