"""Tokens that stand beside a vocabulary, for tokenizers that are no `tokenizers` pipeline."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import AddedToken

from model.config import UnsupportedModel
from model.tokenizers.contract import OutsideVocabulary
from model.tokenizers.settings import Settings, text_of


class AddedTokens:
    """Special and other added tokens: cut out of raw text, and skipped in targets."""

    def __init__(
        self,
        settings: Settings,
        vocabulary: Mapping[str, int],
        *,
        defaults: dict[str, Any],
        extra: list[Any] | None = None,
        fixed: Mapping[int, AddedToken] | None = None,
    ) -> None:
        """Give every token its id, new ones behind the vocabulary.

        Args:
            defaults: named special tokens of the class.
            extra: special tokens without a name, if the files list none.
            fixed: tokens that the class itself adds, by id.
        """
        if settings.flag("split_special_tokens"):
            raise UnsupportedModel("tokenizer_config.json: split_special_tokens is not supported")
        flags = {**(fixed or {}), **settings.added}
        if single := [token.content for token in flags.values() if token.single_word]:
            raise UnsupportedModel(f"added token {single[0]}: single_word is not supported")
        self.ids = {token.content: index for index, token in flags.items()}
        special = dict.fromkeys(
            map(text_of, [*settings.named_tokens(defaults), *settings.extra(extra)])
        )
        known = {**vocabulary, **self.ids}
        for token in special:
            if token and token not in self.ids:
                self.ids[token] = known.setdefault(token, len(known))
        self.texts = {index: token for token, index in self.ids.items()}
        self.skipped = frozenset(self.ids[token] for token in special if token)
        self._strips = {t.content: (t.lstrip, t.rstrip) for t in flags.values()}
        longest_first = sorted((token for token in self.ids if token), key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def framed(
        self, before: tuple[int, ...], ids: list[int], end: int, vocabulary: int
    ) -> tuple[int, ...]:
        """Return raw input between its special tokens; raises OutsideVocabulary."""
        if ids and max(ids) >= vocabulary:
            raise OutsideVocabulary(
                f"the text names {self.texts[max(ids)]}, beyond the model's {vocabulary} tokens"
            )
        return (*before, *ids, end)

    def split(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Yield the parts of raw text, added tokens with their ids."""
        parts = self._split.split(text)
        for at in range(1, len(parts), 2):
            left, right = self._strips.get(parts[at], (False, False))
            if left:
                parts[at - 1] = parts[at - 1].rstrip()
            if right:
                parts[at + 1] = parts[at + 1].lstrip()
        for at, part in enumerate(parts):
            if part:
                yield part, self.ids[part] if at % 2 else None
