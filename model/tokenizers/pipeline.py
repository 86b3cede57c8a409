"""The tokenizer of every family that runs a pipeline of the `tokenizers` library."""

from collections.abc import Iterable, Mapping
from functools import cache

import tokenizers
from tokenizers import decoders, models

from model.config import UnsupportedModel
from model.detokenizer import ByteJoiner, Detokenizer, MetaspaceJoiner
from model.tokenizers.contract import OutsideVocabulary, Prompt, inside, joined
from model.tokenizers.prompts import Form, NoTranslation


class PipelineTokenizer:
    """A `tokenizers` pipeline whose ids are transformers', and a family's way to translate."""

    def __init__(self, pipeline: tokenizers.Tokenizer, *, vocabulary: int, cleans: bool) -> None:
        """Take over a pipeline.

        Args:
            vocabulary: tokens that the model has an embedding for.
            cleans: `clean_up_tokenization_spaces`.

        Raises:
            UnsupportedModel: the pipeline joins tokens in a way that is not known here.
        """
        pipeline.no_truncation()
        pipeline.no_padding()
        self._pipeline, self._vocabulary = pipeline, vocabulary
        self._normalizer, self._words = pipeline.normalizer, pipeline.pre_tokenizer
        self._model = pipeline.model
        # transformers cleans up after no BPE: its spaces are part of the text.
        self._cleans = cleans and not isinstance(self._model, models.BPE)
        added = pipeline.get_added_tokens_decoder()
        self._silent = frozenset(i for i, token in added.items() if token.special)
        self._reserved = {token.content for token in added.values()}
        if isinstance(self._model, models.BPE):  # reports what is unknown under this name
            self._reserved.discard(self._model.unk_token)
        self._is_bytes = isinstance(pipeline.decoder, decoders.ByteLevel)
        if not self._is_bytes and not isinstance(pipeline.decoder, decoders.Metaspace):
            kind = type(pipeline.decoder).__name__
            raise UnsupportedModel(f"tokenizer.json: decoder {kind} is not supported")
        self.form: Form = NoTranslation()

    # -- to ids ------------------------------------------------------------------------------

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """{source code: target codes}."""
        return self.form.targets

    @property
    def aliases(self) -> Mapping[str, str]:
        """{other spelling, in lower case: code}."""
        return self.form.aliases

    def reserve(self, pieces: Iterable[str]) -> None:
        """Take pieces of the model's own vocabulary for special: data never has them."""
        self._reserved |= set(pieces)

    def beyond(self) -> str | None:
        """Return a piece that data may hold and the model has no embedding for, if there is one.

        Special tokens are none: data never has them. BART's summarisers leave `<mask>` out.
        """
        pieces = self._pipeline.get_vocab(with_added_tokens=False).items()
        ids = {i: piece for piece, i in pieces if i >= self._vocabulary}
        return next((ids[i] for i in sorted(ids) if ids[i] not in self._reserved), None)

    def prompt(self, text: str, source: str, target: str) -> Prompt:
        """Encode data for a translation; see Tokenizer."""
        return self.form.prompt(self.encode_target, text, source, target)

    def encode_raw(self, text: str) -> tuple[int, ...]:
        """Encode as `tokenizer(text)`; see Tokenizer."""
        return self._within(self._pipeline.encode(text).ids)

    def encode_bare(self, text: str) -> tuple[int, ...]:
        """Encode raw text without special tokens at the ends."""
        return self._within(self._pipeline.encode(text, add_special_tokens=False).ids)

    def encode_target(self, text: str) -> tuple[int, ...]:
        """Encode data without special tokens; a reserved piece in it is spelled out."""
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        words = [text]
        if self._words is not None:
            words = [word for word, _ in self._words.pre_tokenize_str(text)]
        ids: list[int] = []
        for word in words:
            for token in self._model.tokenize(word):
                is_reserved = token.value in self._reserved
                ids += self._spelled(token.value) if is_reserved else [token.id]
        return tuple(ids)

    def encode_inside(self, text: str, *, is_spaced: bool = True) -> tuple[int, ...] | None:
        """Encode words as a target holds them behind others."""
        return inside(self, text, is_spaced=is_spaced)

    def _spelled(self, piece: str) -> list[int]:
        return [token.id for letter in piece for token in self._model.tokenize(letter)]

    def _within(self, ids: list[int]) -> tuple[int, ...]:
        if ids and max(ids) >= self._vocabulary:
            token = self._pipeline.id_to_token(max(ids))
            raise OutsideVocabulary(
                f"the text names {token}, beyond the model's {self._vocabulary} tokens"
            )
        return tuple(ids)

    def token_id(self, token: str) -> int | None:
        """Return the id of a vocabulary entry; None if there is none."""
        found: int | None = self._pipeline.token_to_id(token)
        return found

    def source_token(self, token: int) -> str:
        """Return the vocabulary's entry of a source id."""
        return self._pipeline.id_to_token(token) or ""

    def target_token(self, token: int) -> str:
        """Return the vocabulary's entry of a target id."""
        return self.source_token(token)

    # -- to text -----------------------------------------------------------------------------

    def is_special(self, token: int) -> bool:
        """Whether `decode` skips the token."""
        return token in self._silent

    def detokenizer(self) -> Detokenizer:
        """Return a fresh Detokenizer for one target."""
        piece = self._pipeline.id_to_token
        if self._is_bytes:
            joiner = ByteJoiner(lambda i: _bytes(piece(i)), self._silent, errors="replace")
            return Detokenizer(joiner, cleans=self._cleans)
        trims = self._pipeline.decoder.prepend_scheme != "never"
        return Detokenizer(MetaspaceJoiner(piece, self._silent, trims=trims), cleans=self._cleans)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of a whole target."""
        return joined(self.detokenizer(), ids)


@cache
def _byte_letters() -> dict[str, int]:
    """Return the letters by which byte-level BPE writes bytes: printable ones for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


def _bytes(piece: str | None) -> bytes:
    letters = _byte_letters()
    if all(letter in letters for letter in piece or ""):
        return bytes(letters[letter] for letter in piece or "")
    return (piece or "").encode()  # an added token, written as it reads
