"""A model's own language codes and the codes that clients use for them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import langcodes
from langcodes.tag_parser import LanguageTagError

_BETTER = {"fil": "tl", "ns": "nso"}  # ISO 639 for what CLDR and M2M100 call otherwise
_MACRO = {"pbt": "ps", "quy": "qu", "fuv": "ff"}  # standard forms that CLDR does not list
_SAME = {"tl": "fil", "nb": "no", "no": "nb", "he": "iw", "id": "in", "yi": "ji", "jv": "jw"}


def client_codes(own: Iterable[str]) -> dict[str, str]:
    """Return {client code: the model's own code}, one client code for each of `own`.

    A client code is ISO 639-1 where the language has one (`deu_Latn` is `de`). The standard form
    of a macrolanguage counts as the macrolanguage (`arb_Arab` is `ar`, `lvs_Latn` is `lv`), unless
    the model has that code as well. Of a language's several scripts or countries the likeliest one
    gets the bare code (`zho_Hans` is `zh`); the others carry script or country (`zh-Hant`).
    What is no language tag (`ROMANCE`) stays as it is.
    """
    groups: dict[str, list[tuple[langcodes.Language, str]]] = defaultdict(list)
    codes: dict[str, str] = {}
    for code, tag in _tags(own).items():
        if tag is None:
            codes[code] = code
        else:
            groups[str(tag.language)].append((tag, code))
    for language, members in groups.items():
        bare = _likeliest(language, members)
        for tag, code in members:
            name = language if code == bare else _full(tag)
            codes[name if name not in codes else code] = code
    return codes


def aliases(codes: Mapping[str, str]) -> dict[str, str]:
    """Return {spelling in lower case: client code} for all that clients may write.

    Those are the client codes themselves, the model's own codes (`deu_Latn`), and the full tag of
    a language that has a short code (`zh-Hans`, `de-Latn`).
    """
    spellings: dict[str, str] = {}
    for client, own in codes.items():
        names = [own, own.replace("_", "-"), _SAME.get(client, own)]
        for tag in filter(None, (_parsed(own), _parsed(client))):
            names += [_full(tag), f"{tag.language}-{_likely_script(tag)}"]
        for name in names:
            spellings.setdefault(name.lower(), client)
    return spellings | {client.lower(): client for client in codes}


def is_language(code: str) -> bool:
    """Whether a code is a language tag, however it is written."""
    return _parsed(code) is not None


def every_pair(codes: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the targets of a model that translates from each of `codes` to each other."""
    ordered = sorted(codes)
    return {s: tuple(t for t in ordered if t != s) for s in ordered}


def _parsed(code: str) -> langcodes.Language | None:
    try:
        tag = langcodes.Language.get(langcodes.standardize_tag(code))
    except LanguageTagError:
        return None
    if not tag.language or tag.extensions or tag.private:
        return None
    return tag.update_dict({"language": _BETTER.get(tag.language, tag.language)})


def _tags(own: Iterable[str]) -> dict[str, langcodes.Language | None]:
    """Return each code's tag, individual languages as their macrolanguages where that is free."""
    tags = {code: _parsed(code) for code in own}
    taken = {tag.language for tag in tags.values() if tag and not tag.territory}
    return {code: tag and _macro(tag, taken) for code, tag in tags.items()}


def _macro(tag: langcodes.Language, taken: set[str | None]) -> langcodes.Language:
    if len(str(tag.language)) == 2:
        return tag
    own = langcodes.Language.make(_MACRO.get(str(tag.language), tag.language), script=tag.script)
    macro = langcodes.Language.get(langcodes.standardize_tag(own.to_tag(), macro=True))
    is_short = len(str(macro.language)) == 2 and macro.language not in taken
    return macro if is_short else tag


def _likely_script(tag: langcodes.Language) -> str | None:
    place = f"-{tag.territory}" if tag.territory else ""
    return tag.script or langcodes.Language.get(f"{tag.language}{place}").maximize().script


def _likeliest(language: str, members: list[tuple[langcodes.Language, str]]) -> str | None:
    if len(members) == 1:
        return members[0][1]
    likely = langcodes.Language.get(language).maximize()

    def distance(member: tuple[langcodes.Language, str]) -> tuple[bool, bool, bool, str]:
        tag, code = member
        is_elsewhere = tag.territory not in (None, "XX", likely.territory)
        has_more = bool(tag.script or tag.territory)
        return _likely_script(tag) != likely.script, is_elsewhere, has_more, code

    best = min(members, key=distance)
    return best[1] if distance(best)[:2] == (False, False) else None


def _full(tag: langcodes.Language) -> str:
    place = None if tag.territory == "XX" else tag.territory
    return langcodes.Language.make(tag.language, script=tag.script, territory=place).to_tag()
