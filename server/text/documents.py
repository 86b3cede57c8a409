"""Documents: from a file's content to the texts that are translated, and back, without loss."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from server.text import cues
from server.text.html_pieces import pieces
from server.text.passages import Passage
from server.text.rules import PLAIN, TextRules

Format = Literal["text", "html", "srt", "vtt"]
EXTENSIONS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".srt": "srt",
    ".vtt": "vtt",
}
MAX_CHARACTERS = 20_000  # as a request's texts may have by default

_LINE = re.compile(r"[^\r\n]+|\r\n|\r|\n")
_BREAKS = (  # where a long text is cut, best first
    re.compile(r"(?:\r\n|\r|\n)\s*(?:\r\n|\r|\n)"),
    re.compile(r"\r\n|\r(?!$)|\n"),
    re.compile(r"[.!?…]\s+|[。\uff01\uff1f]"),
    re.compile(r"\s+"),
)


def format_of(file_name: str) -> Format:
    """Return the format that a file's extension names.

    Raises:
        ValueError: it names none of ours; says which there are.
    """
    extension = PurePath(file_name).suffix.lower()
    if extension in EXTENSIONS:
        return EXTENSIONS[extension]
    raise ValueError(
        f"{extension or 'a name without extension'} is not a supported format; supported are "
        f"{' '.join(EXTENSIONS)}"
    )


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content as what stays, and what is translated.

    Attributes:
        texts: what is translated, in order.
        lines: the number of the line in which each text begins, from 1.
        rules: how the texts are read, without what the user protects.
        parts: the content, as what stays and as what is translated.
    """

    texts: tuple[str, ...]
    lines: tuple[int, ...]
    rules: TextRules
    parts: tuple[cues.Part, ...]

    def written(self, translations: Sequence[str]) -> str:
        """Return the content with `translations` in place of the texts, all else as it was.

        Raises:
            ValueError: there are not as many as texts.
        """
        if len(translations) != len(self.texts):
            raise ValueError(f"{len(translations)} translations for {len(self.texts)} texts")
        return Writer(self).add(translations)


class Writer:
    """Writes a document while its translations come in, in order."""

    def __init__(self, document: Document) -> None:
        self._parts, self._at = document.parts, 0

    def add(self, translations: Iterable[str]) -> str:
        """Return what is certain with these: up to the next text that is still to come."""
        written: list[str] = []
        coming = iter(translations)
        while self._at < len(self._parts):
            part = self._parts[self._at]
            if isinstance(part, Passage):
                target = next(coming, None)
                if target is None:
                    break
                part = part.written(target)
            written.append(part)
            self._at += 1
        return "".join(written)


def read(
    content: str,
    format: Format,
    *,
    max_characters: int = MAX_CHARACTERS,
    by_line: bool = False,
) -> Document:
    """Read a document; the identical translation of its texts gives `content` back.

    Args:
        content: with line ends as they are in the file; a byte order mark stays.
        max_characters: in one text. Text is cut between paragraphs, else lines, sentences, words;
            html only between blocks, so that a block that is longer stays whole, and so does a cue.
        by_line: each line of a text is a text of its own, so that its language is, too.

    Raises:
        ValueError: subtitles hold what cannot be kept; says in which line.
    """
    body = content.removeprefix("\ufeff")
    before = content[: len(content) - len(body)]
    rules = TextRules(markup="html") if format == "html" else PLAIN
    if format == "html":
        parts = [_whole(piece) for piece in pieces(body, max_characters)]
    elif format == "text":
        chunks = _LINE.findall(body) if by_line else [body]
        parts = [_whole(piece) for chunk in chunks for piece in _cut(chunk, max_characters)]
    else:
        parts, rules = cues.read(body, is_vtt=format == "vtt")
    return _document([part for part in (before, *parts) if part != ""], rules)


def _whole(piece: str) -> cues.Part:
    return Passage((piece,)) if any(map(str.isalpha, piece)) else piece


def _document(parts: Sequence[cues.Part], rules: TextRules) -> Document:
    texts, lines, line = [], [], 1
    for part in parts:
        if isinstance(part, Passage):
            texts.append(part.text)
            lines.append(line)
        line += _line_ends(part.source if isinstance(part, Passage) else part)
    return Document(tuple(texts), tuple(lines), rules, tuple(parts))


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _cut(text: str, limit: int) -> Iterator[str]:
    """Cut a text so that no piece is above `limit`, where it reads best."""
    begin = 0
    while len(text) - begin > limit:
        end = _break(text[begin : begin + limit]) + begin
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _break(window: str) -> int:
    for pattern in _BREAKS:
        ends = [found.end() for found in pattern.finditer(window)]
        if ends:
            return ends[-1]
    return len(window)
