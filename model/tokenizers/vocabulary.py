"""The vocabulary behind a `tokenizers` pipeline: pieces, merges and rules of normalisation."""

import base64
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken

from model.checkpoint import Checkpoint, CheckpointError
from model.tokenizers.sentencepiece_file import Pieces, read_pieces


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the files hold, in their own order.

    Attributes:
        scored: pieces with their scores, for a Unigram model; empty for BPE.
        ids: {piece: id}, for BPE.
        merges: of BPE, in the order of their rank.
        charsmap: compiled rules of normalisation, None if there are none.
        symbols: what a SentencePiece file declares as special; None from tokenizer.json.
    """

    scored: list[tuple[str, float]]
    ids: dict[str, int]
    merges: list[tuple[str, str]]
    charsmap: bytes | None
    symbols: list[AddedToken] | None = None

    @property
    def is_from_sentencepiece(self) -> bool:
        """Whether it was read from a SentencePiece file."""
        return self.symbols is not None


def read_vocabulary(checkpoint: Checkpoint, *names: str) -> Vocabulary:
    """Read tokenizer.json, or the first of the files `names` where there is none."""
    if (checkpoint.folder / "tokenizer.json").is_file():
        return _from_json(checkpoint.read_json("tokenizer.json"))
    found = [name for name in names if (checkpoint.folder / name).is_file()]
    if not found:
        raise CheckpointError(
            f"{checkpoint.folder}: neither tokenizer.json nor {names[0]} is there"
        )
    if found[0].endswith(".model"):
        return _from_pieces(read_pieces(checkpoint.folder / found[0]))
    ids = checkpoint.read_json(found[0])
    return Vocabulary([], ids, _read_merges(checkpoint), None)


def merges_of(ids: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges by which BPE makes its pieces, in the order of the pieces' ids."""
    found: list[tuple[int, int, int, int, int, str, str]] = []
    for piece, rank in ids.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                found.append((rank, cut, len(right), ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _from_json(content: dict[str, Any]) -> Vocabulary:
    model = content["model"]
    pieces = model["vocab"]
    scored = [(piece, score) for piece, score in pieces] if isinstance(pieces, list) else []
    ids = {piece: i for i, (piece, _) in enumerate(scored)} if scored else pieces
    merges = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges", ())]
    pairs = [(left, right) for left, right in merges]
    return Vocabulary(scored, ids, pairs, _charsmap(content.get("normalizer")))


def _charsmap(normalizer: dict[str, Any] | None) -> bytes | None:
    steps = (normalizer or {}).get("normalizers", [normalizer or {}])
    maps = [step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled"]
    return base64.b64decode(maps[0]) if maps and maps[0] else None


def _from_pieces(pieces: Pieces) -> Vocabulary:
    symbols = [
        AddedToken(text, normalized=False, special=is_control)
        for text, is_control in pieces.symbols.items()
    ]
    ids = {text: i for i, (text, _) in enumerate(pieces.scored)}
    return Vocabulary(pieces.scored, ids, [], pieces.charsmap or None, symbols)


def _read_merges(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    path = checkpoint.file("merges.txt")
    merges = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#version") or not line.strip():
            continue
        left, _, right = line.rstrip("\n").partition(" ")
        merges.append((left, right))
    return merges
