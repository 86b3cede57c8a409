"""ByT5's tokenizer: a token for each byte of UTF-8, behind three special ones."""

from collections.abc import Iterable, Mapping

from tokenizers import AddedToken

from model.checkpoint import Checkpoint
from model.detokenizer import ByteJoiner, Detokenizer
from model.tokenizers.added import AddedTokens
from model.tokenizers.contract import Prompt, inside, joined
from model.tokenizers.prompts import Form, NoTranslation, TextPrefixes, text_prefixes
from model.tokenizers.settings import Settings, text_of

_OFFSET = 3
_BYTES = 256
_NAMES = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


class ByT5Tokenizer:
    """ByT5: no files but settings; sentinels `<extra_id_n>` stand behind the bytes."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings, *, vocabulary: int) -> None:
        """Read the settings of a checkpoint."""
        values = settings.values
        tokens = [values.get(name, text) for name, text in _NAMES.items()]
        fixed = {
            i: AddedToken(t, lstrip=True, rstrip=True) if isinstance(t, str) else t
            for i, t in enumerate(tokens)
        }
        extra = values.get("additional_special_tokens")
        count = settings.count("extra_ids", 125)
        if extra is None and count > 0:
            extra = [f"<extra_id_{i}>" for i in range(count)]
        letters = {chr(i): i + _OFFSET for i in range(_BYTES)}
        self._added = AddedTokens(
            settings,
            letters | {text_of(token): i for i, token in fixed.items()},
            defaults=_NAMES,
            extra=extra,
            fixed=fixed,
        )
        self._eos = self._added.ids[text_of(tokens[1])]
        self._vocabulary = vocabulary
        self._cleans = settings.flag("clean_up_tokenization_spaces")
        prefixes = text_prefixes(checkpoint.config)
        self._form: Form = TextPrefixes(prefixes, eos=self._eos) if prefixes else NoTranslation()
        self.targets: Mapping[str, tuple[str, ...]] = self._form.targets
        self.aliases: Mapping[str, str] = self._form.aliases

    def prompt(self, text: str, source: str, target: str) -> Prompt:
        """Put the direction's words in front and the end behind."""
        return self._form.prompt(self.encode_target, text, source, target)

    def encode_raw(self, text: str) -> tuple[int, ...]:
        """Encode as ByT5Tokenizer; an end that the text brings itself is not doubled."""
        ids: list[int] = []
        for part, special in self._added.split(text):
            ids += self.encode_target(part) if special is None else [special]
        if ids and ids[-1] == self._eos:
            ids.pop()
        return self._added.framed((), ids, self._eos, self._vocabulary)

    def encode_target(self, text: str) -> tuple[int, ...]:
        """Encode data without special tokens."""
        return tuple(byte + _OFFSET for byte in text.encode())

    def encode_inside(self, text: str, *, is_spaced: bool = True) -> tuple[int, ...] | None:
        """Encode words as a target holds them behind others."""
        return inside(self, text, is_spaced=is_spaced)

    def token_id(self, token: str) -> int | None:
        """Return the id of a special token or of one byte as a character."""
        byte = ord(token) + _OFFSET if len(token) == 1 and ord(token) < _BYTES else None
        return self._added.ids.get(token, byte)

    def source_token(self, token: int) -> str:
        """Return the vocabulary's entry of a source id."""
        name = chr(token - _OFFSET) if _OFFSET <= token < _BYTES + _OFFSET else ""
        return self._added.texts.get(token, name)

    def target_token(self, token: int) -> str:
        """Return the vocabulary's entry of a target id."""
        return self.source_token(token)

    def is_special(self, token: int) -> bool:
        """Whether `decode` skips the token."""
        return token in self._added.skipped

    def detokenizer(self) -> Detokenizer:
        """Return a fresh Detokenizer for one target."""
        joiner = ByteJoiner(self._bytes, self._added.skipped, errors="ignore")
        return Detokenizer(joiner, cleans=self._cleans)

    def _bytes(self, token: int) -> bytes:
        if token in self._added.texts:
            return self._added.texts[token].encode()
        return bytes([token - _OFFSET]) if _OFFSET <= token < _OFFSET + _BYTES else b""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of a whole target."""
        return joined(self.detokenizer(), ids)
