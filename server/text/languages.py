"""Languages: their names, and which one a text is in."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import langcodes
from langcodes.tag_parser import LanguageTagError
from py3langid.langid import MODEL_FILE, LanguageIdentifier


def english_name(code: str) -> str:
    """Return a language's name in English, `German` for `de`."""
    try:
        return langcodes.Language.get(code).display_name()
    except LanguageTagError:  # a group such as ROMANCE
        return code


_LONGEST_TAG = 35  # RFC 5646, section 4.4.1
_SAME = 5  # langcodes' distance of en-GB from en; Bosnian is 8 from Croatian
_LIBRETRANSLATES = {"zt": "zh-Hant", "pb": "pt-BR"}  # codes of its own, which no standard has


def client_code(code: str) -> str:
    """Return the tag that LibreTranslate's clients know one of our codes by: `zh` has a script."""
    return "zh-Hans" if code == "zh" else code


def closest(code: str, among: Iterable[str]) -> str | None:
    """Return the one of `among` that a code means, `pt` for `pt-BR`; None if there is none."""
    if len(code) > _LONGEST_TAG:
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


class LanguageDetector:
    """Tells which of a few languages a text is in; it never answers another one."""

    def __init__(self) -> None:
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        self._known = frozenset(self._identifier.labels)

    def rank(self, text: str, among: Iterable[str]) -> list[Detection]:
        """Return the languages of `among` by likelihood, best first.

        Those that the detector does not know are never named. Where nothing tells, for lack of
        letters or of known languages, the answer is a guess with confidence 0.
        """
        languages = sorted(among)
        known = self._known.intersection(languages)
        if not known or not any(map(str.isalpha, text)):
            return [Detection("en" if "en" in languages else languages[0], 0.0)]
        scores = {code: s for code, s in self._identifier.rank(text) if code in known}
        # A longer text gives larger differences: without this, every answer would be certain.
        temperature = math.sqrt(len(text.encode("utf-8", "surrogatepass")))
        best = max(scores.values())
        likelihoods = {code: math.exp((s - best) / temperature) for code, s in scores.items()}
        total = sum(likelihoods.values())
        return [Detection(code, value / total) for code, value in likelihoods.items()]
