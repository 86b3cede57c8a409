"""Languages: their names, and which one a text is in."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import langcodes
from langcodes import language_distance
from langcodes.tag_parser import LanguageTagError
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from server.text.placeholders import find_placeholders
from server.text.scripts import chinese_scripts, is_japanese, is_traditional, main_script, scripts

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Bounded(dict[_Key, _Value]):
    """Takes in nothing more once it is full."""

    _FULL = 20_000

    def __setitem__(self, key: _Key, value: _Value) -> None:
        if len(self) < self._FULL:
            super().__setitem__(key, value)


# The library keeps all it was ever asked, for ever, and clients make up tags.
langcodes.Language._INSTANCES = _Bounded()
langcodes.Language._PARSE_CACHE = _Bounded()
language_distance._DISTANCE_CACHE = _Bounded()


def english_name(code: str) -> str:
    """Return a language's name in English, `German` for `de`."""
    try:
        return langcodes.Language.get(code).display_name()
    except LanguageTagError:  # a group such as ROMANCE
        return code


LONGEST_TAG = 35  # RFC 5646, section 4.4.1
_SAME = 5  # langcodes' distance of en-GB from en; Bosnian is 8 from Croatian
_LIBRETRANSLATES = {"zt": "zh-Hant", "pb": "pt-BR"}  # codes of its own, which no standard has


def client_code(code: str) -> str:
    """Return the tag that LibreTranslate's clients know one of our codes by: `zh` has a script."""
    return "zh-Hans" if code == "zh" else code


def closest(code: str, among: Iterable[str]) -> str | None:
    """Return the one of `among` that a code means, `pt` for `pt-BR`; None if there is none."""
    if len(code) > LONGEST_TAG:
        return None
    code = _LIBRETRANSLATES.get(code.lower(), code)
    try:
        found, _ = langcodes.closest_match(code, list(among), max_distance=_SAME)
    except LanguageTagError:
        return None
    return None if found == "und" else found


@dataclass(frozen=True, slots=True)
class Detection:
    """A language and how sure the detector is, 0 to 1."""

    language: str
    confidence: float


_ENOUGH = 2000  # characters that tell a text's language
_WIDESPREAD = 0.15  # how much a language's writers count: a power of their number
_SHARPNESS = 0.4  # a longer text tells more, but not in proportion: what one says, others repeat
# What the identifier calls languages, or one it knows that is written alike.
_OWN_LABELS = {"ki": "kik", "ff": "fuv", "gn": "gug", "nb": "no", "fil": "tl", "bo": "dz"}
_CANTONESE = frozenset("嘅咗唔喺啲嗰佢咁冇睇嚟")


class LanguageDetector:
    """Tells which of a few languages a text is in; it never answers another one."""

    def __init__(self) -> None:
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        self._known = frozenset(self._identifier.labels)

    def rank(self, text: str, among: Iterable[str]) -> list[Detection]:
        """Return the languages of `among` by likelihood, best first.

        Placeholders and markup in the text tell nothing. Only languages in whose script most of it
        is are named; of several, only those that the detector knows. Where nothing tells, for lack
        of letters or of a language with this script, the answer is a guess with confidence 0.
        """
        languages = tuple(sorted(among))
        words = _without_placeholders(text[:_ENOUGH])
        script, share = main_script(words)
        candidates = [code for code in languages if script in scripts(code)]
        if script == "Hani":
            likelihoods = _in_han(words, languages)
        elif len(candidates) == 1:
            likelihoods = {candidates[0]: 1.0}
        else:
            likelihoods = self._likelihoods(words, tuple(candidates))
        return _ranked(likelihoods, share) or _guess(candidates or languages)

    def _likelihoods(self, words: str, codes: tuple[str, ...]) -> dict[str, float]:
        """Return {code: likelihood}, to any scale."""
        labels = _labels(codes, self._known)
        if not labels:
            return {}
        padded = f" {words} "  # where words begin and end tells much
        temperature = len(padded.encode("utf-8", "surrogatepass")) ** _SHARPNESS
        scores = dict(self._identifier.rank(padded))
        best = max(scores[label] for label in labels)  # of no feature, a very large number
        weights = {
            code: (scores[label] - best) / temperature + _prior(code)
            for label, code in labels.items()
        }
        return {code: math.exp(weight) for code, weight in weights.items()}


def _without_placeholders(text: str) -> str:
    """Blank out what is written alike in every language."""
    parts, at = list[str](), 0
    for start, end in sorted(find_placeholders(text)):
        if start >= at:
            parts += text[at:start], " "
        at = max(at, end)
    return "".join((*parts, text[at:])).strip()


def _guess(languages: Sequence[str]) -> list[Detection]:
    english = [code for code in languages if _language(code) == "en"]
    return [Detection((english or sorted(languages, key=_prior))[-1], 0.0)]


def _ranked(likelihoods: Mapping[str, float], share: float) -> list[Detection]:
    """Return them by likelihood, if `share` of the text speaks for them at all."""
    scale = share / sum(likelihoods.values()) if likelihoods else 0
    ranked = sorted(likelihoods.items(), key=lambda item: (-item[1], item[0]))
    return [Detection(code, value * scale) for code, value in ranked]


def _in_han(words: str, languages: Sequence[str]) -> dict[str, float]:
    """Return {code: likelihood}, to any scale, for a text in Han without kana."""
    chinese = [code for code in languages if "Hani" in scripts(code)]
    japanese = [code for code in languages if _language(code) == "ja"][:1]
    if japanese and (not chinese or is_japanese(words)):
        return {japanese[0]: 1.0}
    cantonese = [code for code in chinese if _language(code) == "yue"]
    if not _CANTONESE.isdisjoint(words):
        chinese = cantonese or chinese
    else:
        chinese = [code for code in chinese if code not in cantonese] or chinese
    simplified, traditional = chinese_scripts(words)
    found = {code: traditional if is_traditional(code) else simplified for code in chinese}
    return found | dict.fromkeys(japanese, 1 / (1 + len(words)))


@lru_cache(1024)
def _labels(codes: tuple[str, ...], known: frozenset[str]) -> Mapping[str, str]:
    """Return {what the identifier calls a language: its code}, for those that it knows."""
    found: dict[str, str] = {}
    for is_macro in (False, True):  # `acm` is `ar` only where that is not there
        for code in codes:
            name = _language(code, is_macro)
            label = _OWN_LABELS.get(name, name)
            if label in known and code not in found.values():
                found.setdefault(label, code)
    return found


@lru_cache(1024)
def _prior(code: str) -> float:
    """Return how much likelier the many who write a language make it, as a logarithm."""
    writers = langcodes.Language.get(_language(code)).writing_population()
    return _WIDESPREAD * math.log(max(1, writers))


@lru_cache(1024)
def _language(code: str, macro: bool = False) -> str:
    """Return ISO 639's code of the language alone, or of what it is a variety of."""
    try:
        tag = langcodes.standardize_tag(code, macro=macro)
    except LanguageTagError:  # a group such as ROMANCE
        return "und"
    return langcodes.Language.get(tag).language or "und"
