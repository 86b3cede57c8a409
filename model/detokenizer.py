"""Token ids in, text that will not change any more out, one token at a time."""

import codecs
import re
from collections.abc import Callable, Sequence
from typing import Protocol

_SPACE = "\u2581"  # SentencePiece's mark for a space
_BROKEN = "\ufffd"

# What transformers' clean_up_tokenization replaces, in its order.
_CLEANED = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
# An end of text that one of the replacements, or several in turn, may still reach into.
_UNCLEAN = re.compile(r" [ ']*(?:n[ ']*|[vr])?$")


class Joiner(Protocol):
    """Ids to text as a vocabulary's decoder joins them, nothing stripped."""

    def push(self, token: int) -> str:
        """Take the next token; returns the text that is now certain, often empty."""

    def finish(self) -> str:
        """Take the end of the target; returns what was still held back."""


class Detokenizer:
    """Target ids in, text that will not change any more out.

    The pieces of text that `push` and `finish` return concatenate to what the reference's
    `decode(ids, skip_special_tokens=True)` returns for all ids. One object serves one target.
    """

    def __init__(self, joiner: Joiner, *, strips: bool = False, cleans: bool = False) -> None:
        """Join with `joiner`.

        Args:
            strips: white space at both ends is dropped.
            cleans: spaces before punctuation are dropped (`clean_up_tokenization_spaces`).
        """
        self._joiner, self._strips, self._cleans = joiner, strips, cleans
        self._spaces = ""  # held back: dropped if nothing follows
        self._has_begun = False
        self._unclean = ""  # held back: what follows may change it

    def push(self, token: int) -> str:
        """Take the next token; returns the text that is now certain, often empty."""
        return self._cleaned(self._stripped(self._joiner.push(token)))

    def finish(self) -> str:
        """Take the end of the target; returns what was still held back."""
        return self._cleaned(self._stripped(self._joiner.finish()), is_end=True)

    def _stripped(self, text: str) -> str:
        if not self._strips:
            return text
        held = self._spaces + text
        if not self._has_begun:
            held = held.lstrip()
        certain = held.rstrip()
        self._spaces = held[len(certain) :]
        self._has_begun = self._has_begun or bool(certain)
        return certain

    def _cleaned(self, text: str, *, is_end: bool = False) -> str:
        if not self._cleans:
            return text
        text = self._unclean + text
        held = None if is_end else _UNCLEAN.search(text)
        end = held.start() if held else len(text)
        text, self._unclean = text[:end], text[end:]
        for before, after in _CLEANED:
            text = text.replace(before, after)
        return text


class MetaspaceJoiner:
    """Joins as `tokenizers`' Metaspace decoder: the first token loses its marks of a space."""

    def __init__(
        self, piece: Callable[[int], str | None], silent: frozenset[int], *, trims: bool
    ) -> None:
        """Join pieces; ids in `silent` have no text.

        Args:
            piece: of an id, None for one beyond the vocabulary.
            trims: whether the marks at the beginning are dropped.
        """
        self._piece, self._silent, self._trims = piece, silent, trims

    def push(self, token: int) -> str:
        """Take the next token; returns its text."""
        piece = None if token in self._silent else self._piece(token)
        if piece is None:
            return ""
        trims, self._trims = self._trims, False
        return piece.replace(_SPACE, "" if trims else " ")

    def finish(self) -> str:
        """Return nothing: this joiner holds nothing back."""
        return ""


class ByteJoiner:
    """Joins tokens that are bytes of UTF-8, a character only when it is complete."""

    def __init__(
        self, piece: Callable[[int], bytes], silent: frozenset[int], *, errors: str
    ) -> None:
        """Join pieces; ids in `silent` have no text.

        Args:
            piece: the bytes of an id.
            errors: `replace` broken characters by U+FFFD, or `ignore` them.
        """
        self._piece, self._silent = piece, silent
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, token: int) -> str:
        """Take the next token; returns the characters that are complete."""
        return "" if token in self._silent else self._decoder.decode(self._piece(token))

    def finish(self) -> str:
        """Return what an incomplete character at the end reads as."""
        return self._decoder.decode(b"", final=True)


class SentencePieceJoiner:
    """Joins as SentencePiece's own decoder: byte pieces make characters, a first space is none."""

    def __init__(self, pieces: Sequence[str | int | None], unknown: str) -> None:
        """Join `pieces` by id: text with its spaces, one byte as an int, or None for no text.

        Args:
            unknown: what an id beyond the pieces reads as; it ends the run of pieces.
        """
        self._pieces, self._unknown = pieces, unknown
        self._bytes = bytearray()  # of characters that are not complete yet
        self._is_first = True

    def push(self, token: int) -> str:
        """Take the next token; returns the text that is now certain."""
        if not 0 <= token < len(self._pieces):
            self._is_first = True
            return self._flush() + self._unknown
        piece = self._pieces[token]
        if piece is None:
            return ""
        if isinstance(piece, int):
            self._bytes.append(piece)
            return self._noted(self._complete_characters())
        before = self._noted(self._flush())
        if self._is_first:
            piece = piece.removeprefix(" ")
        return before + self._noted(piece)

    def finish(self) -> str:
        """Return what an incomplete character at the end reads as."""
        return self._flush()

    def _noted(self, text: str) -> str:
        self._is_first = self._is_first and not text
        return text

    def _complete_characters(self) -> str:
        """Take from the held bytes all but a character that more bytes may complete."""
        text = ""
        while self._bytes and not self._may_be_completed():
            text += self._take_character()
        return text

    def _may_be_completed(self) -> bool:
        first = self._bytes[0]
        width = 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4
        is_lead = 0xC2 <= first <= 0xF4
        continues = all(0x80 <= byte <= 0xBF for byte in self._bytes[1:])
        return is_lead and continues and len(self._bytes) < width

    def _take_character(self) -> str:
        """Take one character; an invalid byte becomes one U+FFFD, as in SentencePiece."""
        for width in range(1, min(4, len(self._bytes)) + 1):
            try:
                character = self._bytes[:width].decode()
            except UnicodeDecodeError:
                continue
            del self._bytes[:width]
            return character
        del self._bytes[0]
        return _BROKEN

    def _flush(self) -> str:
        text = ""
        while self._bytes:
            text += self._take_character()
        return text
