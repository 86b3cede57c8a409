"""M2M100's tokenizer: a SentencePiece model, vocab.json, and a token for each language."""

from collections.abc import Iterable, Mapping

from model.checkpoint import Checkpoint, CheckpointError
from model.detokenizer import Detokenizer, SentencePieceJoiner
from model.tokenizers.added import AddedTokens
from model.tokenizers.codes import M2M100_CODES
from model.tokenizers.contract import Prompt, inside, joined
from model.tokenizers.prompts import LanguageTokens
from model.tokenizers.sentencepiece_file import open_sentencepiece, piece_texts
from model.tokenizers.settings import Settings, text_of

_DEFAULTS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
}


class M2M100Tokenizer:
    """M2M100 and WMT21: `__xx__ text </s>`, and the target's token as the first one generated."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings, *, vocabulary: int) -> None:
        """Read sentencepiece.bpe.model and vocab.json."""
        values, self._vocabulary = settings.values, vocabulary
        self._model = open_sentencepiece(checkpoint.file("sentencepiece.bpe.model"))
        self._ids: dict[str, int] = checkpoint.read_json("vocab.json")
        codes = M2M100_CODES[values.get("language_codes", "m2m100")]
        self._verify_ids(checkpoint, len(codes), vocabulary)
        self._languages = {code: len(self._ids) + i for i, code in enumerate(codes)}
        extra = values.get("additional_special_tokens")
        self._added = AddedTokens(settings, self._ids, defaults=_DEFAULTS, extra=extra)
        self._unknown_token = text_of(values.get("unk_token", "<unk>"))
        self._unknown = self._ids[self._unknown_token]
        self._eos = self._added.ids[text_of(values.get("eos_token", "</s>"))]
        self._source = self._languages[values.get("src_lang") or "en"]
        self._cleans = settings.flag("clean_up_tokenization_spaces")
        self._names = {index: piece for piece, index in self._ids.items()}
        self._names |= {index: f"__{code}__" for code, index in self._languages.items()}
        self._names |= self._added.texts
        self._texts = self._text_by_id()
        self._form = LanguageTokens(
            self._languages, eos=self._eos, source_at="front", target_as="forced_bos"
        )
        self.targets: Mapping[str, tuple[str, ...]] = self._form.targets
        self.aliases: Mapping[str, str] = self._form.aliases

    def _verify_ids(self, checkpoint: Checkpoint, languages: int, vocabulary: int) -> None:
        path, size = checkpoint.folder / "vocab.json", len(self._ids)
        if sorted(self._ids.values()) != list(range(size)):
            raise CheckpointError(f"{path}: the ids are not 0 to {size - 1}")
        if size + languages > vocabulary:
            raise CheckpointError(
                f"{path} has {size} ids, with {languages} languages behind them; "
                f"config.json says {vocabulary}"
            )

    def _text_by_id(self) -> list[str | int | None]:
        names = self._names
        ordered = [names.get(i, self._unknown_token) for i in range(max(names) + 1)]
        texts = piece_texts(self._model, ordered)
        for index in self._added.skipped:
            texts[index] = None
        return texts

    # -- to ids ------------------------------------------------------------------------------

    def prompt(self, text: str, source: str, target: str) -> Prompt:
        """Put the source's token in front and force the target's."""
        return self._form.prompt(self.encode_target, text, source, target)

    def encode_raw(self, text: str) -> tuple[int, ...]:
        """Encode as M2M100Tokenizer with its default source language."""
        ids: list[int] = []
        for part, special in self._added.split(text):
            if special is not None:
                ids.append(special)
            else:
                pieces = self._model.encode(part, out_type=str)
                ids += [self._id(piece) for piece in pieces]
        return self._added.framed((self._source,), ids, self._eos, self._vocabulary)

    def _id(self, piece: str) -> int:
        if piece in self._added.ids:
            return self._added.ids[piece]
        if piece.startswith("__") and piece.endswith("__") and piece[2:-2] in self._languages:
            return self._languages[piece[2:-2]]
        return self._ids.get(piece, self._unknown)

    def encode_target(self, text: str) -> tuple[int, ...]:
        """Encode data without special tokens."""
        ids: list[int] = []
        for piece in self._model.encode(text, out_type=str):
            letters = piece if piece in self._added.ids else [piece]
            ids += [self._ids.get(letter, self._unknown) for letter in letters]
        return tuple(ids)

    def encode_inside(self, text: str, *, is_spaced: bool = True) -> tuple[int, ...] | None:
        """Encode words as a target holds them behind others."""
        return inside(self, text, is_spaced=is_spaced)

    def token_id(self, token: str) -> int | None:
        """Return the id of a vocabulary entry, `__de__` for example; None if there is none."""
        found = self._id(token)
        return None if found == self._unknown and token != self._unknown_token else found

    def source_token(self, token: int) -> str:
        """Return the vocabulary's entry of a source id."""
        return self._names.get(token, "")

    def target_token(self, token: int) -> str:
        """Return the vocabulary's entry of a target id."""
        return self.source_token(token)

    # -- to text -----------------------------------------------------------------------------

    def is_special(self, token: int) -> bool:
        """Whether `decode` skips the token."""
        return token in self._added.skipped

    def detokenizer(self) -> Detokenizer:
        """Return a fresh Detokenizer for one target."""
        joiner = SentencePieceJoiner(self._texts, self._unknown_token)
        return Detokenizer(joiner, strips=True, cleans=self._cleans)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of a whole target."""
        return joined(self.detokenizer(), ids)
