"""Scripts: which one a text is in, and which ones a language is written in."""

import unicodedata
from collections import Counter
from functools import lru_cache

import langcodes
from langcodes.tag_parser import LanguageTagError

# What the names of letters begin with in Unicode, and ISO 15924's codes. Hang, Jpan and Hani stand
# for the scripts of Korean, of Japanese where it has kana, and of either where it has Han alone.
_BY_NAME = {
    "LATIN": "Latn",
    "CYRILLIC": "Cyrl",
    "GREEK": "Grek",
    "ARMENIAN": "Armn",
    "HEBREW": "Hebr",
    "ARABIC": "Arab",
    "SYRIAC": "Syrc",
    "THAANA": "Thaa",
    "NKO": "Nkoo",
    "DEVANAGARI": "Deva",
    "BENGALI": "Beng",
    "GURMUKHI": "Guru",
    "GUJARATI": "Gujr",
    "ORIYA": "Orya",
    "TAMIL": "Taml",
    "TELUGU": "Telu",
    "KANNADA": "Knda",
    "MALAYALAM": "Mlym",
    "SINHALA": "Sinh",
    "THAI": "Thai",
    "LAO": "Laoo",
    "TIBETAN": "Tibt",
    "MYANMAR": "Mymr",
    "KHMER": "Khmr",
    "GEORGIAN": "Geor",
    "ETHIOPIC": "Ethi",
    "CHEROKEE": "Cher",
    "MONGOLIAN": "Mong",
    "TIFINAGH": "Tfng",
    "OL": "Olck",
    "HANGUL": "Hang",
    "HIRAGANA": "Jpan",
    "KATAKANA": "Jpan",
    "KATAKANA-HIRAGANA": "Jpan",
    "HALFWIDTH": "Jpan",
    "CJK": "Hani",
    "FULLWIDTH": "Latn",
}
_COMBINED = {"Kore": "Hang", "Hans": "Hani", "Hant": "Hani"}
_ALSO = {"sr": "Latn", "az": "Cyrl", "uz": "Cyrl", "ku": "Arab", "pa": "Arab"}
_SYLLABIC = ("Hani", "Jpan", "Hang")  # a character of theirs says as much as four letters
_KANA_SHARE = 0.1  # of a Japanese text's characters, at least; names in a Chinese one have fewer


def main_script(text: str) -> tuple[str | None, float]:
    """Return the script of most of a text, and its share of the letters; None without letters."""
    if text.isascii():
        return ("Latn", 1.0) if any(map(str.isalpha, text)) else (None, 0.0)
    counts = Counter[str]()
    for character, count in Counter(text).items():
        if script := _script(character):
            counts[script] += count * (4 if script in _SYLLABIC else 1)
    if not counts:
        return (None, 0.0)
    total = counts.total()
    if counts["Jpan"] > _KANA_SHARE * (counts["Jpan"] + counts["Hani"]):
        counts["Jpan"] += counts.pop("Hani", 0)
    (script, count), *_ = counts.most_common(1)
    return script, count / total


@lru_cache(4096)
def _script(character: str) -> str | None:
    if not character.isalpha():
        return None
    return _BY_NAME.get(unicodedata.name(character, "").partition(" ")[0])


@lru_cache(1024)
def scripts(code: str) -> frozenset[str]:
    """Return the scripts that a language is written in, as `main_script` calls them."""
    try:
        language = langcodes.Language.get(code)
    except LanguageTagError:  # a group such as ROMANCE
        return frozenset()
    likely = language.script or language.maximize().script or ""
    also = () if language.script else (_ALSO.get(str(language.language), ""),)
    return frozenset({_COMBINED.get(likely, likely), *also} - {""})


def is_traditional(code: str) -> bool:
    """Whether a language that is written in Han has traditional characters."""
    return langcodes.Language.get(code).maximize().script == "Hant"


def chinese_scripts(text: str) -> tuple[float, float]:
    """Return how likely a text in Han is in simplified, and in traditional characters."""
    simplified = traditional = 0
    for character in text:
        if _script(character) == "Hani":
            is_simplified, is_traditional = _is_in(character, "gb2312"), _is_in(character, "big5")
            simplified += is_simplified and not is_traditional
            traditional += is_traditional and not is_simplified
    # Where nothing tells, simplified ones are likelier.
    share = (simplified + 0.7) / (simplified + traditional + 1)
    return share, 1 - share


def is_japanese(text: str) -> bool:
    """Whether a text in Han has a character that only Japanese has."""
    return any(
        _script(character) == "Hani"
        and _is_in(character, "shift_jis")
        and not (_is_in(character, "gb2312") or _is_in(character, "big5"))
        for character in text
    )


@lru_cache(4096)
def _is_in(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
