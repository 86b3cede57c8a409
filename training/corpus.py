"""Parallel text: reading it, holding sentences out, and turning the rest into token ids."""

import hashlib
import io
import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece

_NOT_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Pair:
    """One aligned sentence, English first."""

    english: str
    other: str
    tag: str


def read_pairs(path: Path, tags: frozenset[str]) -> Iterator[Pair]:
    """Read `english TAB other TAB tag` lines (plain or .xz) whose tag is wanted."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            english, other, tag = line.rstrip("\n").split("\t")
            if tag in tags:
                yield Pair(english, other, tag)


def key(text: str) -> str:
    """What two sentences share when they differ in case, spacing or punctuation only."""
    return _NOT_LETTERS.sub(" ", text.casefold()).strip()


def hold_out(pairs: Iterable[Pair], tag: str, count: int) -> list[Pair]:
    """Choose `count` pairs of corpus `tag`, no two sharing a side, by the SHA-256 of their text.

    The choice depends on the text alone, never on the order of the file or a random state.
    """
    ranked = sorted(
        (pair for pair in pairs if pair.tag == tag),
        key=lambda pair: hashlib.sha256(f"{pair.english}\t{pair.other}".encode()).digest(),
    )
    chosen: list[Pair] = []
    english_seen: set[str] = set()
    other_seen: set[str] = set()
    for pair in ranked:
        english, other = key(pair.english), key(pair.other)
        if english and other and english not in english_seen and other not in other_seen:
            english_seen.add(english)
            other_seen.add(other)
            chosen.append(pair)
        if len(chosen) == count:
            return chosen
    raise ValueError(f"only {len(chosen)} distinct pairs tagged {tag!r}; {count} were asked for")


def without(pairs: Iterable[Pair], held_out: Iterable[Pair]) -> list[Pair]:
    """Drop every pair that shares either side with a held-out pair."""
    held = list(held_out)
    english = {key(pair.english) for pair in held}
    other = {key(pair.other) for pair in held}
    return [p for p in pairs if key(p.english) not in english and key(p.other) not in other]


def train_sentencepiece(sentences: Iterable[str], vocabulary: int) -> bytes:
    """Train one joint BPE with byte fallback; returns the serialised model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        character_coverage=0.9999,
        num_threads=1,
        minloglevel=1,
        bos_id=-1,
        pad_id=-1,
        eos_id=0,
        unk_id=1,
    )
    return model.getvalue()


def vocabulary(
    pieces: sentencepiece.SentencePieceProcessor, languages: Iterable[str]
) -> dict[str, int]:
    """Map every token to its id: the pieces, then `>>xx<<` of each language, then `<pad>`."""
    tokens = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    tokens += [f">>{language}<<" for language in languages]
    tokens.append("<pad>")
    return {token: index for index, token in enumerate(tokens)}


class Ragged:
    """Many short id sequences in one flat array."""

    def __init__(self, sequences: Iterable[list[int]]) -> None:
        rows = [np.asarray(row, dtype=np.int32) for row in sequences]
        self.lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.flat = np.concatenate(rows)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        start = self.starts[index]
        return self.flat[start : start + self.lengths[index]]

    def padded(self, indices: np.ndarray, fill: int) -> np.ndarray:
        """Return [len(indices), longest] int64 ids, `fill` after each row's end."""
        block = np.full((len(indices), self.lengths[indices].max()), fill, dtype=np.int64)
        for row, index in enumerate(indices):
            block[row, : self.lengths[index]] = self[index]
        return block


def batches(
    sources: Ragged, targets: Ragged, max_tokens: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Cut one epoch into batches of similar lengths, shuffled.

    Each holds at most `max_tokens` source and target tokens together, padding included.
    """
    noise = rng.random(len(sources))
    order = np.lexsort((noise, targets.lengths, sources.lengths + targets.lengths))
    cut, first, widest = [], 0, 0
    for position, index in enumerate(order):
        width = max(widest, int(sources.lengths[index] + targets.lengths[index]) + 2)
        if (position - first + 1) * width > max_tokens and position > first:
            cut.append(order[first:position])
            first, width = position, int(sources.lengths[index] + targets.lengths[index]) + 2
        widest = width
    cut.append(order[first:])
    return [cut[index] for index in rng.permutation(len(cut))]
