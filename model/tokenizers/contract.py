"""What every tokenizer offers, whatever files it comes from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from model.detokenizer import Detokenizer

_BEFORE = ("a", "1", "(", "。")  # what some vocabulary joins to a text, or lacks, another does not


class UnknownDirection(ValueError):
    """A source or target language that the model has no token or prefix for."""


class OutsideVocabulary(ValueError):
    """A text that names a token for which the model has no embedding."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a translation needs besides its options.

    Attributes:
        source: ids for the encoder, special tokens included.
        start: the decoder's start token in place of the model's own.
        forced_bos: the first target token, which must be generated.
    """

    source: tuple[int, ...]
    start: int | None = None
    forced_bos: int | None = None


class Tokenizer(Protocol):
    """Text to token ids and back, with the ids of the reference."""

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """{source code: target codes} as clients write them; empty for raw generation only."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """{other spelling, in lower case: code of `targets`}; `prompt` takes only the codes."""

    def prompt(self, text: str, source: str, target: str) -> Prompt:
        """Encode data for a translation: nothing in `text` counts as a special token.

        Args:
            source: a code of `targets`.
            target: one of its codes.

        Raises:
            UnknownDirection: there is no such pair in `targets`.
        """

    def encode_raw(self, text: str) -> tuple[int, ...]:
        """Encode as the reference's `tokenizer(text)`: special tokens in `text` count as such.

        Raises:
            OutsideVocabulary: `text` names a token that the model has no embedding for.
        """

    def encode_target(self, text: str) -> tuple[int, ...]:
        """Encode data as the beginning of a target, without language token or end."""

    def encode_inside(self, text: str, *, is_spaced: bool = True) -> tuple[int, ...] | None:
        """Encode words as a target holds them behind others, for `DecodingOptions.phrases`.

        Where the vocabulary writes spaces in front of words, a target may begin with them, too.

        Args:
            is_spaced: whether a space precedes them, which is then among the tokens.

        Returns:
            None where the vocabulary cannot write exactly that.
        """

    def token_id(self, token: str) -> int | None:
        """Return the id of a vocabulary entry, `deu_Latn` for example; None if there is none."""

    def source_token(self, token: int) -> str:
        """Return the vocabulary's entry of an id as `prompt` gives it; empty if it has none."""

    def target_token(self, token: int) -> str:
        """Return the vocabulary's entry of a generated id; empty if it has none."""

    def detokenizer(self) -> Detokenizer:
        """Return a fresh Detokenizer for one target."""

    def is_special(self, token: int) -> bool:
        """Whether the reference's `decode(ids, skip_special_tokens=True)` skips the token."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of a whole target, without special tokens."""


def inside(tokenizer: Tokenizer, text: str, *, is_spaced: bool) -> tuple[int, ...] | None:
    """Return what `Tokenizer.encode_inside` does: what stands behind tokens that stay the same."""
    if not text or text != text.strip():
        return None
    for before in _BEFORE:
        known, whole = tokenizer.encode_target(before), before + " " * is_spaced + text
        ids = tokenizer.encode_target(whole)
        found = ids[len(known) :]
        is_same = ids[: len(known)] == known and tokenizer.decode(ids) == whole
        if is_same and not any(map(tokenizer.is_special, found)):
            return found
    return None


def joined(detokenizer: Detokenizer, ids: Iterable[int]) -> str:
    """Return the text of all `ids`."""
    return "".join([*map(detokenizer.push, ids), detokenizer.finish()])
