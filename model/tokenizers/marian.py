"""Marian's tokenizer: a SentencePiece model for each side, and vocab.json for their ids."""

from collections.abc import Iterable, Mapping
from typing import Any

import sentencepiece

from model.checkpoint import Checkpoint, CheckpointError
from model.detokenizer import Detokenizer, SentencePieceJoiner
from model.languages import aliases, client_codes
from model.tokenizers.added import AddedTokens
from model.tokenizers.contract import Prompt, inside, joined
from model.tokenizers.prompts import verify
from model.tokenizers.sentencepiece_file import open_sentencepiece, piece_texts
from model.tokenizers.settings import Settings, text_of

_DEFAULTS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


class MarianTokenizer:
    """OPUS-MT and other Marian models, bilingual or with `>>xx<<` in front of the source."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings, *, vocabulary: int) -> None:
        """Read source.spm, target.spm, vocab.json and, for separate ids, target_vocab.json."""
        values, self._vocabulary = settings.values, vocabulary
        is_separate = settings.flag("separate_vocabs")
        self._source = open_sentencepiece(checkpoint.file("source.spm"))
        self._target = open_sentencepiece(checkpoint.file("target.spm"))
        self._ids = _read_ids(checkpoint, "vocab.json", vocabulary)
        self._target_ids = self._ids
        if is_separate:
            size = int(checkpoint.config.get("decoder_vocab_size") or vocabulary)
            self._target_ids = _read_ids(checkpoint, "target_vocab.json", size)
        extra = values.get("additional_special_tokens")
        self._added = AddedTokens(settings, self._ids, defaults=_DEFAULTS, extra=extra)
        unknown, eos = (text_of(values.get(k, _DEFAULTS[k])) for k in ("unk_token", "eos_token"))
        for token in (unknown, eos):
            if token not in self._ids:
                raise CheckpointError(f"{checkpoint.folder / 'vocab.json'} lacks {token}")
        self._unknown, self._eos = self._ids[unknown], self._added.ids[eos]
        self._target_unknown = self._target_ids.get(unknown, self._unknown)
        self._cleans = settings.flag("clean_up_tokenization_spaces")
        names = {index: piece for piece, index in self._target_ids.items()} | self._added.texts
        self._target_names = names
        self._source_names = {index: piece for piece, index in self._ids.items()}
        ordered = [names.get(index, "") for index in range(max(names) + 1)]
        texts = piece_texts(self._target if is_separate else self._source, ordered)
        self._texts = [t.replace("\u2581", " ") if isinstance(t, str) else t for t in texts]
        for index in self._added.skipped:
            self._texts[index] = None
        self._first = (
            {} if is_separate else {t[2:-2]: i for t, i in self._ids.items() if _is_code(t)}
        )
        self._reserved = {*self._added.ids, *(f">>{code}<<" for code in self._first)}
        self._name_languages(values)

    def _name_languages(self, values: dict[str, Any]) -> None:
        """Derive the directions from the language tokens and tokenizer_config.json."""
        sources = client_codes(c for c in str(values.get("source_lang") or "").split("+") if c)
        declared = str(values.get("target_lang") or "")
        targets = client_codes(self._first or ([declared] if declared else []))
        self._codes = {c: self._first[own] for c, own in targets.items() if self._first}
        self.targets: Mapping[str, tuple[str, ...]] = (
            {s: tuple(sorted(t for t in targets if t != s)) for s in sources} if targets else {}
        )
        both = aliases(sources) | aliases(targets)
        self.aliases: Mapping[str, str] = both

    # -- to ids ------------------------------------------------------------------------------

    def prompt(self, text: str, source: str, target: str) -> Prompt:
        """Put the target's token in front, if the model has one, and the end behind."""
        verify(self.targets, source, target)
        code = (self._codes[target],) if self._codes else ()
        ids = self._data(self._source, self._ids, self._unknown, text)
        return Prompt((*code, *ids, self._eos))

    def encode_raw(self, text: str) -> tuple[int, ...]:
        """Encode as MarianTokenizer: special tokens and a leading `>>xx<<` count as such."""
        ids: list[int] = []
        for part, special in self._added.split(text):
            if special is not None:
                ids.append(special)
                continue
            code, rest = _language_code(part)
            pieces = [code] * bool(code) + self._source.encode(rest, out_type=str)
            ids += [self._ids.get(piece, self._unknown) for piece in pieces]
        return self._added.framed((), ids, self._eos, self._vocabulary)

    def encode_target(self, text: str) -> tuple[int, ...]:
        """Encode data as the beginning of a target."""
        return tuple(self._data(self._target, self._target_ids, self._target_unknown, text))

    def encode_inside(self, text: str, *, is_spaced: bool = True) -> tuple[int, ...] | None:
        """Encode words as a target holds them behind others."""
        return inside(self, text, is_spaced=is_spaced)

    def _data(
        self,
        model: sentencepiece.SentencePieceProcessor,
        ids: dict[str, int],
        unknown: int,
        text: str,
    ) -> list[int]:
        found = []
        for piece in model.encode(text, out_type=str):
            letters = piece if piece in self._reserved else [piece]
            found += [ids.get(letter, unknown) for letter in letters]
        return found

    def token_id(self, token: str) -> int | None:
        """Return the id of a vocabulary entry; None if there is none."""
        return self._added.ids.get(token, self._target_ids.get(token))

    def source_token(self, token: int) -> str:
        """Return the vocabulary's entry of a source id."""
        return self._source_names.get(token, "")

    def target_token(self, token: int) -> str:
        """Return the vocabulary's entry of a target id."""
        return self._target_names.get(token, "")

    # -- to text -----------------------------------------------------------------------------

    def is_special(self, token: int) -> bool:
        """Whether `decode` skips the token."""
        return token in self._added.skipped

    def detokenizer(self) -> Detokenizer:
        """Return a fresh Detokenizer for one target."""
        joiner = SentencePieceJoiner(self._texts, "")
        return Detokenizer(joiner, strips=True, cleans=self._cleans)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of a whole target."""
        return joined(self.detokenizer(), ids)


def _read_ids(checkpoint: Checkpoint, name: str, size: int) -> dict[str, int]:
    ids = checkpoint.read_json(name)
    if sorted(ids.values()) != list(range(len(ids))) or len(ids) != size:
        raise CheckpointError(
            f"{checkpoint.folder / name} has {len(ids)} ids; config.json says {size}"
        )
    return ids


def _is_code(token: str) -> bool:
    return token.startswith(">>") and token.endswith("<<") and len(token) > 4


def _language_code(text: str) -> tuple[str, str]:
    end = text.find("<<")
    if text.startswith(">>") and end != -1:
        return text[: end + 2], text[end + 2 :]
    return "", text
