"""Languages: their names, and which one a text is in."""

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


@dataclass(frozen=True, slots=True)
class Detection:
    """A language and how sure the detector is, 0 to 1."""

    language: str
    confidence: float


class LanguageDetector:
    """Tells which of a few languages a text is in; it never answers another one."""

    def __init__(self, languages: Iterable[str]) -> None:
        """Restrict the answers to `languages`; those it does not know are never named."""
        self._languages = sorted(languages)
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        known = set(self._identifier.labels)
        self._known = [code for code in self._languages if code in known]
        if self._known:
            self._identifier.set_languages(self._known)

    def rank(self, text: str) -> list[Detection]:
        """Return the languages by likelihood, best first; a guess at 0 where nothing tells."""
        if not self._known or not any(map(str.isalpha, text)):
            fallback = "en" if "en" in self._languages else self._languages[0]
            return [Detection(fallback, 0.0)]
        return [Detection(code, float(p)) for code, p in self._identifier.rank(text)]
