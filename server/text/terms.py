"""Terms: the words of a glossary, and those that stay as they are, found in a text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from server.errors import InvalidRequest, TooLarge
from server.text.rules import TextRules

MAX_TERMS, MAX_CHARACTERS = 1000, 200

# Scripts that put no space between words: there, each character may begin or end a term.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]++|[^\s\w]")
_SENTENCE_START = re.compile(r"[.!?…:]['\"”»)\]]*\s+['\"“«„(\[¿¡]*\Z|\A[^\w]*\Z")
_BEFORE = 16  # characters that tell whether a sentence starts


@dataclass(frozen=True, slots=True)
class Term:
    """Where a term is, in characters, and what stands for it in the target.

    `target` is None for a term that stays as it is.
    """

    start: int
    end: int
    target: str | None


@dataclass(slots=True)
class _Node:
    """What may follow some tokens of a term; `target` is a term's that ends here."""

    after: dict[str, "_Node"]
    ends: bool = False
    target: str | None = None


def verify_term_count(count: int) -> None:
    """Raise TooLarge for more terms than a request may hold."""
    if count > MAX_TERMS:
        raise TooLarge(f"{count} glossary entries and protected terms; at most {MAX_TERMS}")


def verify_terms(rules: TextRules) -> None:
    """Refuse terms that could not be found, or not be told apart, and too many of them.

    Raises:
        InvalidRequest, TooLarge: says which.
    """
    verify_term_count(len(rules.glossary) + len(rules.protected))
    seen = dict[str, str | None]()
    for source, target in _entries(rules):
        for words in filter(None, (source, target or None)):
            if len(words) > MAX_CHARACTERS:
                raise TooLarge(
                    f"the term '{words[:20]}...' has {len(words)} characters; "
                    f"at most {MAX_CHARACTERS}"
                )
        if not source.strip() or (target is not None and not target.strip()):
            raise InvalidRequest("a glossary entry or protected term is empty: leave it out")
        if _END_OF_LINE.search(source) or _END_OF_LINE.search(target or ""):
            raise InvalidRequest(f"the term {source!r} has a line end in it: leave it out")
        if seen.setdefault(source.strip(), target) != target:
            raise InvalidRequest(f"the term '{source}' is there twice, with different targets")


_END_OF_LINE = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def find_terms(text: str, rules: TextRules) -> Iterator[Term]:
    """Yield the terms of `rules` in `text`, whole words, not overlapping, the longest first.

    The case must be the term's; but a term that begins with a small letter is found with a capital
    one where a sentence starts. White space within a term may be any.
    """
    root = _tree(rules.glossary, rules.protected)
    tokens = [(found.group(), found.start(), found.end()) for found in _TOKEN.finditer(text)]
    index = 0
    while index < len(tokens):
        word, start, _ = tokens[index]
        found = _longest(root, tokens, index, word)
        if found is None and word[0].isupper() and _starts_sentence(text, start):
            found = _longest(root, tokens, index, word[0].lower() + word[1:])
        if found is None:
            index += 1
            continue
        index, target = found
        yield Term(start, tokens[index - 1][2], target)


def _longest(
    root: _Node, tokens: list[tuple[str, int, int]], index: int, word: str
) -> tuple[int, str | None] | None:
    """Return the token after the longest term that begins at `index` with `word`, its target."""
    node, best = root.after.get(word), None
    while node is not None:
        index += 1
        if node.ends:
            best = index, node.target
        if index == len(tokens):
            break
        word, start, _ = tokens[index]
        joint = word if start == tokens[index - 1][2] else f" {word}"
        node = node.after.get(joint)
    return best


def _starts_sentence(text: str, at: int) -> bool:
    return (
        _SENTENCE_START.search(text[:at] if at <= _BEFORE else text[at - _BEFORE : at]) is not None
    )


def _entries(rules: TextRules) -> Iterator[tuple[str, str | None]]:
    yield from rules.glossary
    yield from ((term, None) for term in rules.protected)


@lru_cache(64)
def _tree(glossary: tuple[tuple[str, str], ...], protected: tuple[str, ...]) -> _Node:
    root = _Node({})
    for source, target in _entries(TextRules(glossary=glossary, protected=protected)):
        node, before = root, None
        for found in _TOKEN.finditer(source):
            joint = "" if before in (None, found.start()) else " "
            node = node.after.setdefault(f"{joint}{found.group()}", _Node({}))
            before = found.end()
        node.ends, node.target = node is not root, target
    return root
