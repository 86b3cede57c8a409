"""Text to token ids and back: SentencePiece with Marian's vocab.json."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from model.checkpoint import Checkpoint, CheckpointError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"  # SentencePiece's mark for a space
_BROKEN = "\ufffd"


class Detokenizer:
    """Target ids in, text that will not change any more out.

    The pieces of text that `push` and `finish` return concatenate to the text of all ids: no space
    at either end, no half character. One object serves one target.
    """

    def __init__(self, pieces: list[str], silent: frozenset[int]) -> None:
        """Decode with `pieces` by id; ids in `silent` (end, padding, unknown) have no text."""
        self._pieces, self._silent = pieces, silent
        self._bytes = bytearray()  # of characters that are not complete yet
        self._spaces = ""  # held back: dropped if nothing follows
        self._has_begun = False

    def push(self, token: int) -> str:
        """Take the next token; returns the text that is now certain, often empty."""
        if token in self._silent:
            return ""
        piece = self._pieces[token]
        if byte := _BYTE.fullmatch(piece):
            self._bytes.append(int(byte[1], 16))
            return self._certain(self._complete_characters())
        return self._certain(self._flush_bytes() + piece.replace(_SPACE, " "))

    def finish(self) -> str:
        """Take the end of the target; returns what was still held back."""
        return self._certain(self._flush_bytes())

    def _certain(self, text: str) -> str:
        held = self._spaces + text
        if not self._has_begun:
            held = held.lstrip()
        certain = held.rstrip()
        self._spaces = held[len(certain) :]
        self._has_begun = self._has_begun or bool(certain)
        return certain

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

    def _flush_bytes(self) -> str:
        text = ""
        while self._bytes:
            text += self._take_character()
        return text


class Tokenizer:
    """Marian's tokenizer: a SentencePiece model for each side, one vocabulary for both."""

    def __init__(self, source: Path, target: Path, vocabulary: dict[str, int], *, eos: int) -> None:
        """Load the SentencePiece models; raises CheckpointError for a file that is not one."""
        self._source = _sentencepiece(source)
        _sentencepiece(target)  # refuse a broken file now, though pieces are joined without it
        self._ids = vocabulary
        self._eos = eos
        self._unknown = vocabulary["<unk>"]
        self._pieces = [""] * (max(vocabulary.values()) + 1)
        for piece, index in vocabulary.items():
            self._pieces[index] = piece
        self._special = ["</s>", "<unk>", "<pad>"]
        self._silent = frozenset(vocabulary[token] for token in self._special)
        self._split = re.compile("(" + "|".join(map(re.escape, self._special)) + ")")

    @classmethod
    def open(cls, checkpoint: Checkpoint, *, vocabulary: int, eos: int) -> "Tokenizer":
        """Read source.spm, target.spm and vocab.json of a checkpoint."""
        path = checkpoint.file("vocab.json")
        try:
            ids = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(ids, dict):
            raise CheckpointError(f"{path} holds {type(ids).__name__}, not a JSON object")
        if sorted(ids.values()) != list(range(len(ids))) or len(ids) != vocabulary:
            raise CheckpointError(f"{path} has {len(ids)} ids; config.json says {vocabulary}")
        if absent := {"</s>", "<unk>", "<pad>"} - set(ids):
            raise CheckpointError(f"{path} lacks {sorted(absent)[0]}")
        return cls(checkpoint.file("source.spm"), checkpoint.file("target.spm"), ids, eos=eos)

    @property
    def target_codes(self) -> frozenset[str]:
        """The languages that a first token `>>xx<<` can choose."""
        return frozenset(t[2:-2] for t in self._ids if t.startswith(">>") and t.endswith("<<"))

    def encode(self, text: str, target: str | None = None) -> tuple[int, ...]:
        """Turn data into source ids; nothing in `text` is taken for a special token.

        Args:
            target: the language to put in front as `>>target<<`, where the model has one.
        """
        code = (self._ids[f">>{target}<<"],) if target is not None else ()
        return (*code, *self._encode_plain(text), self._eos)

    def encode_raw(self, text: str) -> tuple[int, ...]:
        """Turn raw input into source ids as transformers' MarianTokenizer does.

        Special tokens and a leading `>>xx<<` in the text count as such.
        """
        ids: list[int] = []
        for part in self._split.split(text):
            if part in self._special:
                ids.append(self._ids[part])
            elif part:
                code, rest = _language_code(part)
                ids += [self._ids.get(code, self._unknown)] if code else []
                ids += self._encode_plain(rest)
        return (*ids, self._eos)

    def _encode_plain(self, text: str) -> list[int]:
        pieces: Iterable[str] = self._source.encode(text, out_type=str)
        return [self._ids.get(piece, self._unknown) for piece in pieces]

    def detokenizer(self) -> Detokenizer:
        """Return a fresh Detokenizer for one target."""
        return Detokenizer(self._pieces, self._silent)

    def is_special(self, token: int) -> bool:
        """Whether the token has no text of its own."""
        return token in self._silent

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of a whole target, without special tokens."""
        detokenizer = self.detokenizer()
        return "".join([*map(detokenizer.push, ids), detokenizer.finish()])


def _language_code(text: str) -> tuple[str, str]:
    end = text.find("<<")
    if text.startswith(">>") and end != -1:
        return text[: end + 2], text[end + 2 :]
    return "", text


def _sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model") from error
