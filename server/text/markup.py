"""Markup: html and xml cut into blocks of text with inline tags, and what is between them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from server.text import references
from server.text.elements import Elements
from server.text.markup_tokens import Token, tokens
from server.text.nesting import pairs
from server.text.rules import TextRules
from server.text.segments import Segment, Span, Tag

_SPACE = re.compile(r"[ \t\n\r\f]+")
_BEGIN = re.compile(r"(?:\s|&(?:nbsp|#160|#[xX][aA]0);)*")
_BEGIN_REVERSED = re.compile(r"(?:\s|;(?:psbn|061#|0[aA][xX]#)&)*")
_OBJECT = "\ufffc"  # what Unicode has for an object within text, whose place it then takes
_LINE = re.compile(r"[^\r\n]+|[\r\n]+")
_SHOWN = frozenset({"img", "input"})  # tags of html that show something: space on both sides counts


@dataclass(frozen=True, slots=True)
class _Item:
    """Something inline: text, a tag, or an element that stays as it is and reads as `words`."""

    token: Token
    words: str | None = None

    @property
    def is_text(self) -> bool:
        return self.words is None and self.token.kind == "text"

    @property
    def is_content(self) -> bool:
        return self.words is not None or (self.is_text and not self.is_space)

    @property
    def is_space(self) -> bool:
        return self.is_text and _BEGIN.fullmatch(self.token.raw) is not None


def blocks(text: str, rules: TextRules) -> list[Segment]:
    """Cut a document where its elements part blocks; white space at their edges is apart.

    Of a block that is translatable, `text` is what a reader sees: references read, white space
    one space. What stands for each other piece is its text; so all together are the document.
    """
    if rules.markup is None:
        raise ValueError("rules.markup must be html or xml")
    found = tokens(text, rules.markup)
    return _Cutter(found, Elements(found, rules), rules).cut()


@dataclass(slots=True)
class _Cutter:
    tokens: Sequence[Token]
    elements: Elements
    rules: TextRules
    pieces: list[Segment] = field(default_factory=list)
    pending: list[_Item] = field(default_factory=list)
    modes: list[tuple[int, bool, bool]] = field(default_factory=list)  # stop, translates, lines

    def cut(self) -> list[Segment]:
        keeps_lines = self.rules.markup == "xml" and self.rules.sentences == "split"
        self.modes.append((len(self.tokens) + 1, True, keeps_lines))
        position = 0
        while position < len(self.tokens):
            while position >= self.modes[-1][0]:
                self.flush()
                self.modes.pop()
            position = self.take(position)
        self.flush()
        return list(_merged(self.pieces))

    def take(self, position: int) -> int:
        """Take what stands at `position`; returns the position behind it."""
        _, translates, keeps_lines = self.modes[-1]
        token = self.tokens[position]
        if not translates:
            if token.kind == "open" and token.translates:
                self.enter(position, translates=True, keeps_lines=keeps_lines)
            self.leave(token.raw)
            return position + 1
        if token.kind == "open" and self.elements.is_untouched(position):
            return self.pass_over(position)
        if position in self.elements.parting:
            self.flush()
            self.leave(token.raw)
            if self.elements.keeps_lines(position) and token.kind == "open":
                self.enter(position, translates=True, keeps_lines=True)
            return position + 1
        if self.elements.stands_for_a_word(position):
            return self.keep(position, "")
        if token.kind == "text" and keeps_lines:
            self.take_lines(token.raw)
        else:
            self.pending.append(_Item(token))
        return position + 1

    def take_lines(self, raw: str) -> None:
        for line in _LINE.findall(raw):
            if line[0] in "\r\n":
                self.flush()
                self.leave(line)
            else:
                self.pending.append(_Item(Token("text", line)))

    def enter(self, position: int, *, translates: bool, keeps_lines: bool) -> None:
        self.flush()
        lines = keeps_lines or self.elements.keeps_lines(position)
        self.modes.append((self.elements.stop(position), translates, lines))

    def pass_over(self, position: int) -> int:
        """Leave an element as it is, or its tags, where something in it is to be translated."""
        if self.elements.holds_wanted(position):
            self.enter(position, translates=False, keeps_lines=self.modes[-1][2])
            self.leave(self.tokens[position].raw)
            return position + 1
        if position not in self.elements.parting:
            return self.keep(position, self.elements.words(position))
        self.flush()
        stop = self.elements.stop(position)
        self.leave("".join(token.raw for token in self.tokens[position:stop]))
        return stop

    def keep(self, position: int, words: str) -> int:
        stop = self.elements.stop(position)
        raw = "".join(token.raw for token in self.tokens[position:stop])
        self.pending.append(_Item(Token("other", raw), words))
        return stop

    def leave(self, raw: str) -> None:
        self.pieces.append(Segment(raw, is_translatable=False))

    def flush(self) -> None:
        """End the block."""
        self.pieces += _block(self.pending)
        self.pending = []


def _block(items: list[_Item]) -> list[Segment]:
    if not any(item.is_text and _has_letters(item) for item in items):
        return [Segment(_raw(items), is_translatable=False)]
    content = [i for i, item in enumerate(items) if item.is_content]
    begin, end = content[0], content[-1] + 1
    last, space = _without_end(items[end - 1])
    items = [*items[: end - 1], *last, *space, *items[end:]]
    space, first = _without_beginning(items[begin])
    items = [*items[:begin], *space, *first, *items[begin + 1 :]]
    begin, end = _peeled(items, begin + len(space), end + len(space))
    return [
        Segment(_raw(items[:begin]), is_translatable=False),
        _read(items[begin:end]),
        Segment(_raw(items[end:]), is_translatable=False),
    ]


def _has_letters(item: _Item) -> bool:
    return any(map(str.isalpha, references.read(item.token.raw)))


def _raw(items: Sequence[_Item]) -> str:
    return "".join(item.token.raw for item in items)


def _without_beginning(item: _Item) -> tuple[list[_Item], list[_Item]]:
    """Part white space from what follows."""
    match = _BEGIN.match(item.token.raw) if item.is_text else None
    return _parted(item, match.end()) if match else ([], [item])


def _without_end(item: _Item) -> tuple[list[_Item], list[_Item]]:
    """Part the text from white space behind it."""
    raw = item.token.raw
    match = _BEGIN_REVERSED.match(raw[::-1]) if item.is_text else None
    return _parted(item, len(raw) - match.end()) if match else ([item], [])


def _parted(item: _Item, place: int) -> tuple[list[_Item], list[_Item]]:
    raw = item.token.raw
    before, after = ([_Item(Token("text", r))] if r else [] for r in (raw[:place], raw[place:]))
    return before, after


def _peeled(items: list[_Item], first: int, stop: int) -> tuple[int, int]:
    """Return which items make the segment, if those from `first` to `stop` hold its words.

    White space at the edges, tags around all words, and elements before and behind all words
    stay outside.
    """
    begin = 1 + max((i for i in range(first) if items[i].is_space), default=-1)
    end = next((i for i in range(stop, len(items)) if items[i].is_space), len(items))
    closes = pairs([(item.token.kind, item.token.name) for item in items[begin:end]])
    closes = {begin + start: begin + close for start, close in closes.items()}
    opens = {close: start for start, close in closes.items()}
    while True:
        if begin < first and closes.get(begin, begin) < first:
            begin = closes.get(begin, begin) + 1
        elif end > stop and opens.get(end - 1, end - 1) >= stop:
            end = opens.get(end - 1, end - 1)
        elif begin < first and end > stop and closes.get(begin) == end - 1:
            begin, end = begin + 1, end - 1
        else:
            return begin, end


def _read(items: Sequence[_Item]) -> Segment:
    text, tags, spans = "", list[Tag](), list[Span]()
    for item in items:
        token = item.token
        if not item.is_text and item.words is None:
            kind = token.kind if token.kind in ("open", "close") else "void"
            tags.append(Tag(len(text), token.raw, kind, token.name))
            continue
        words = _SPACE.sub(" ", references.read(token.raw if item.words is None else item.words))
        if item.words is not None:
            words = words.strip() or _OBJECT
            spans.append(Span(len(text), len(text) + len(words), token.raw))
        elif text.endswith(" ") and words.startswith(" "):
            words = words[1:]
            if tags and tags[-1].at == len(text) and tags[-1].name in _SHOWN:
                tags[-1] = replace(tags[-1], raw=f"{tags[-1].raw} ")
        text += words
    return Segment(text, True, tuple(spans), tuple(tags), escapes=True)


def _merged(pieces: Sequence[Segment]) -> Iterator[Segment]:
    """Join neighbours that are not translatable; drop empty ones."""
    raw = ""
    for piece in pieces:
        if not piece.is_translatable:
            raw += piece.text
            continue
        if raw:
            yield Segment(raw, is_translatable=False)
        raw = ""
        yield piece
    if raw:
        yield Segment(raw, is_translatable=False)
