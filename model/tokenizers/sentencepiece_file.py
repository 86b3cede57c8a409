"""What SentencePiece's own library does not tell of its model files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from struct import unpack
from typing import Any

import sentencepiece

from model.checkpoint import CheckpointError

_CONTROL, _USER_DEFINED = 3, 4


@dataclass(frozen=True, slots=True)
class Pieces:
    """A SentencePiece model as data.

    Attributes:
        scored: its pieces with their scores, by id.
        symbols: control and user-defined pieces, {text: whether it is a control piece}.
        charsmap: the compiled rules of normalisation, empty if there are none.
    """

    scored: list[tuple[str, float]]
    symbols: dict[str, bool]
    charsmap: bytes


def open_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Load a SentencePiece model; raises CheckpointError for a file that is not one."""
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model") from error


def read_pieces(path: Path) -> Pieces:
    """Read a model's pieces (sentencepiece_model.proto); raises CheckpointError."""
    open_sentencepiece(path)
    try:
        return _pieces(path.read_bytes())
    except (ValueError, IndexError, OverflowError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model: {error}") from error


def _pieces(model: bytes) -> Pieces:
    scored, symbols, charsmap = [], {}, b""
    for field, value in _fields(memoryview(model)):
        if field == 1:
            piece = dict(_fields(value))
            text = bytes(piece[1]).decode()
            scored.append((text, unpack("<f", piece[2])[0] if 2 in piece else 0.0))
            if piece.get(3) in (_CONTROL, _USER_DEFINED):
                symbols[text] = piece[3] == _CONTROL
        elif field == 3:
            charsmap = bytes(dict(_fields(value)).get(2, b""))
    return Pieces(scored, symbols, charsmap)


def _fields(message: memoryview) -> list[tuple[int, Any]]:
    """Return a protocol-buffer message as (number, integer or bytes) pairs."""
    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(message):
        key, at = _integer(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _integer(message, at)
            found.append((key >> 3, value))
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, at = _integer(message, at)
        if size is None or at + size > len(message):
            raise ValueError("a field is cut or of an unknown kind")
        found.append((key >> 3, message[at : at + size]))
        at += size
    return found


def _integer(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def piece_texts(
    model: sentencepiece.SentencePieceProcessor, pieces: Iterable[str]
) -> list[str | int | None]:
    """Return what the model's decoder makes of each piece: text, one byte, or nothing."""
    texts: list[str | int | None] = []
    unknown = model.id_to_piece(model.unk_id())
    for piece in pieces:
        index = model.piece_to_id(piece)
        if model.is_unknown(index):
            texts.append(" \u2047 " if piece == unknown else piece)
        elif model.is_control(index):
            texts.append(None)
        elif model.is_byte(index):
            texts.append(int(piece[3:5], 16))
        else:
            texts.append(piece.replace("\u2581", " "))
    return texts
