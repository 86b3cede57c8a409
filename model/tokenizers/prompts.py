"""How a family tells the model what to translate into what."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

from model.languages import aliases, client_codes, every_pair
from model.tokenizers.contract import Prompt, UnknownDirection

Encode = Callable[[str], tuple[int, ...]]
_NOTHING: Mapping[str, Any] = {}
_PREFIXED = re.compile(r"translation_([^_]+(?:_[A-Z][a-z]+)?)_to_(.+)")


class Form(Protocol):
    """A family's way to ask for a translation."""

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """{source code: target codes} as clients write them."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """{other spelling, in lower case: code of `targets`}."""

    def prompt(self, encode: Encode, text: str, source: str, target: str) -> Prompt:
        """Return the prompt for data that `encode` encodes without special tokens."""


class NoTranslation:
    """A model that is not told languages: it serves raw generation only."""

    targets: Mapping[str, tuple[str, ...]] = _NOTHING
    aliases: Mapping[str, str] = _NOTHING

    def prompt(self, encode: Encode, text: str, source: str, target: str) -> Prompt:
        """Raise: there is no translation."""
        raise UnknownDirection("this model declares no languages")


class LanguageTokens:
    """One token for each language (NLLB, mBART, M2M100): source and target are told by id."""

    def __init__(
        self,
        own: Mapping[str, int],
        *,
        eos: int,
        source_at: Literal["front", "behind"],
        target_as: Literal["start", "forced_bos"],
    ) -> None:
        """Take {the model's own code: id}.

        Args:
            source_at: where the source language stands; `behind` is after the end.
            target_as: whether the target language starts the decoder or is its first token.
        """
        codes = client_codes(own)
        self._ids = {client: own[code] for client, code in codes.items()}
        self._eos, self._source_at, self._target_as = eos, source_at, target_as
        self.targets = every_pair(codes)
        self.aliases: Mapping[str, str] = aliases(codes)

    def prompt(self, encode: Encode, text: str, source: str, target: str) -> Prompt:
        """Frame the source by its language and the end, and name the target's token."""
        verify(self.targets, source, target)
        language, ids = self._ids[source], encode(text)
        framed = (
            (language, *ids, self._eos)
            if self._source_at == "front"
            else (*ids, self._eos, language)
        )
        token = self._ids[target]
        if self._target_as == "start":
            return Prompt(framed, start=token)
        return Prompt(framed, forced_bos=token)


class TargetPieces:
    """A piece `<2xx>` in front of the source names the target (MADLAD-400); any source language."""

    def __init__(self, own: Iterable[str], encode_raw: Encode, *, eos: int) -> None:
        """Take the codes xx; `encode_raw` encodes without special tokens at the ends."""
        codes = client_codes(own)
        self._prefixes = {client: f"<2{code}>" for client, code in codes.items()}
        self._encode_raw, self._eos = encode_raw, eos
        self.targets = every_pair(codes)
        self.aliases: Mapping[str, str] = aliases(codes)

    def prompt(self, encode: Encode, text: str, source: str, target: str) -> Prompt:
        """Put the target's piece in front."""
        verify(self.targets, source, target)
        prefix = self._encode_raw(self._prefixes[target])
        return Prompt((*prefix, *encode(text), self._eos))


class TextPrefixes:
    """Words in front of the source name the direction (T5's task_specific_params)."""

    def __init__(self, prefixes: Mapping[tuple[str, str], str], *, eos: int) -> None:
        """Take {(source, target): text to put in front}."""
        self._prefixes, self._eos = dict(prefixes), eos
        found: dict[str, list[str]] = {}
        for source, target in sorted(prefixes):
            found.setdefault(source, []).append(target)
        self.targets: Mapping[str, tuple[str, ...]] = {
            source: tuple(targets) for source, targets in found.items()
        }
        self.aliases: Mapping[str, str] = _NOTHING

    def prompt(self, encode: Encode, text: str, source: str, target: str) -> Prompt:
        """Put the direction's words in front; they are data as the text is."""
        verify(self.targets, source, target)
        return Prompt((*encode(self._prefixes[source, target] + text), self._eos))


def verify(targets: Mapping[str, tuple[str, ...]], source: str, target: str) -> None:
    """Raise UnknownDirection for a pair that is not in `targets`."""
    if target not in targets.get(source, ()):
        raise UnknownDirection(f"{source} to {target} is not supported")


def text_prefixes(config: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return {(source, target): prefix} from config.json's task_specific_params."""
    found = {}
    for task, settings in (config.get("task_specific_params") or {}).items():
        named = _PREFIXED.fullmatch(task)
        if named and isinstance(settings, dict) and isinstance(settings.get("prefix"), str):
            found[named[1], named[2]] = settings["prefix"]
    return found
