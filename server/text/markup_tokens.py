"""Tokens of html and xml: tags, text and the rest, which put together are the source."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import accumulate, pairwise
from typing import Literal

Kind = Literal["text", "open", "close", "void", "other"]

_RESTARTS = 100
_NAME = re.compile(r"</?\s*([^\s/>]+)")
_IS_MARKUP = re.compile(r"<[A-Za-z/!?]")
_SKIPPED = re.compile(r"(?:</>)+\Z")  # end tags without a name are passed over in silence
_VOID_NAMES = "area base br col embed frame hr img input link meta param source track wbr"
_VOID = frozenset(_VOID_NAMES.split())
_FOREIGN = frozenset({"svg", "math"})  # within html, `<svg/>` is whole


@dataclass(frozen=True, slots=True)
class Token:
    """Characters of the source that belong together.

    Attributes:
        kind: text; a tag that opens, closes or does neither; or another thing: a comment, a
            declaration, an instruction, or what nothing can be made of.
        name: of a tag; html's are in lower case.
        translates: what the tag says of its element's content, if it says something.
    """

    kind: Kind
    raw: str
    name: str = ""
    translates: bool | None = None


class _Found(HTMLParser):
    """Notes where each token starts: (offset, kind, name, raw, translates)."""

    def __init__(self, text: str, *, is_html: bool) -> None:
        super().__init__(convert_charrefs=True)  # else it stops at some references
        if not is_html:
            for kind in ("CDATA_CONTENT_ELEMENTS", "RCDATA_CONTENT_ELEMENTS"):
                setattr(self, kind, ())  # every element of xml is markup
        self._is_html = is_html
        self._lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        self.found: list[tuple[int, Token]] = []

    def read(self, text: str) -> int:
        """Read the whole source; returns how much of it was understood, in characters."""
        try:
            self.feed(text)
        except AssertionError:  # `<![` and an unknown word, or none: it then stands behind that
            return self._place - (3 if text[: self._place].endswith("<![") else 0)
        return self._place

    @property
    def _place(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column

    def _note(
        self, kind: Kind, raw: str = "", name: str = "", translates: bool | None = None
    ) -> None:
        self.found.append((self._place, Token(kind, raw, name, translates)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs, is_whole=self._is_html and tag in _VOID)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        is_whole = not self._is_html or tag in _VOID | _FOREIGN
        self._start(tag, attrs, is_whole=is_whole)

    def _start(self, tag: str, attrs: list[tuple[str, str | None]], *, is_whole: bool) -> None:
        raw = self.get_starttag_text() or ""
        self._note("void" if is_whole else "open", raw, tag, _translates(dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._note("close", name=tag)

    def handle_data(self, data: str) -> None:
        self._note("text")

    def handle_comment(self, data: str) -> None:
        self._note("other")

    def handle_decl(self, decl: str) -> None:
        self._note("other")

    def handle_pi(self, data: str) -> None:
        self._note("other")

    def unknown_decl(self, data: str) -> None:
        self._note("other")


def tokens(text: str, markup: Literal["html", "xml"]) -> list[Token]:
    """Cut `text` into tokens; what never ends, an unclosed comment for example, is the last one.

    It takes time in proportion to the text, whatever stands in it: the parser is never told that
    the text is over, since it looks for the end of everything unclosed once for each start.
    """
    found: list[Token] = []
    for _ in range(_RESTARTS):
        parser = _Found(text, is_html=markup == "html")
        end = parser.read(text)
        found += _cut(text[:end], parser.found, is_html=markup == "html")
        text = text[end:]
        skipped = _skipped(text)
        if not skipped:
            break
        found.append(Token("other", text[:skipped]))
        text = text[skipped:]
    if text:
        found.append(Token("other" if _IS_MARKUP.match(text) else "text", text))
    return found


def _skipped(text: str) -> int:
    """Return how much of an end that was not understood is to be passed over."""
    is_tag = _IS_MARKUP.match(text) and not text.startswith(("<!--", "<?"))
    return text.find(">") + 1 if is_tag else 0


def _cut(text: str, found: list[tuple[int, Token]], *, is_html: bool) -> list[Token]:
    """Give each token its characters: those up to the next one's start."""
    pieces: list[Token] = []
    nothing = Token("other", "")
    starts = [(0, nothing), *found, (len(text), nothing)]  # `</>` before all else is passed over
    for (start, token), (end, _) in pairwise(starts):
        raw = text[start:end]
        if not raw:
            continue
        if token.kind == "text":
            pieces += _text(raw)
            continue
        own = len(token.raw) or len(raw)
        name = token.name
        if not is_html and (match := _NAME.match(raw)):
            name = match[1]
        pieces.append(Token(token.kind, raw[:own], name, token.translates))
        if raw[own:]:
            pieces.append(Token("other", raw[own:]))
    return pieces


def _text(raw: str) -> list[Token]:
    if _IS_MARKUP.match(raw):  # a tag that is none, of which the parser makes text
        return [Token("other", raw)]
    skipped = _SKIPPED.search(raw)
    end = skipped.start() if skipped else len(raw)
    pieces = [Token("text", raw[:end]), Token("other", raw[end:])]
    return [piece for piece in pieces if piece.raw]


def _translates(attributes: dict[str, str | None]) -> bool | None:
    """Read `translate` and the class that stands for it."""
    said = attributes.get("translate", "absent")
    if said != "absent":
        value = (said or "").strip().lower()
        if value in ("", "yes"):
            return True
        if value == "no":
            return False
    return False if "notranslate" in (attributes.get("class") or "").split() else None
