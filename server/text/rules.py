"""Text rules: how the texts of a request are read."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRules:
    """What in a text is markup, what is protected, and where sentences end.

    Attributes:
        markup: what tags are read as; None for plain text, in which nothing is a tag or reference.
        ignored_tags: names of elements whose content stays as it is.
        splitting_tags: names of elements that part sentences, besides those known to.
        non_splitting_tags: names of elements that do not.
        finds_outline: in xml, whether elements that hold no text of their own part sentences.
        sentences: `split` at line ends and between sentences; `flow` between sentences only;
            `whole` is one segment for each block.
        glossary: source terms, and what stands for each in the target.
        protected: terms that stay as they are.
    """

    markup: Literal["html", "xml"] | None = None
    ignored_tags: frozenset[str] = frozenset()
    splitting_tags: frozenset[str] = frozenset()
    non_splitting_tags: frozenset[str] = frozenset()
    finds_outline: bool = True
    sentences: Literal["split", "flow", "whole"] = "split"
    glossary: tuple[tuple[str, str], ...] = ()
    protected: tuple[str, ...] = ()


PLAIN = TextRules()
