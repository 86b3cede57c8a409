"""Passages: what of a document is translated, and how its target is broken into lines again."""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

_MARKUP = re.compile(r"<[^<>]*>|\{[^{}]*\}")  # of subtitles: a line does not end within
_SPACE = re.compile(r"\s+")
_UNSPACED_PUNCTUATION = "。、\uff01\uff0c\uff1a\uff1b\uff1f"  # full-width ! , : ; ?
_PUNCTUATION = tuple(".,;:!?…" + _UNSPACED_PUNCTUATION)
_MOST_LINES = 8  # a cue of more is no sentence
_PAUSE = 0.15  # how much farther off a break after punctuation may be, as a share of the target


@dataclass(frozen=True, slots=True)
class Passage:
    """Text of a document that is translated as one.

    Attributes:
        lines: without what stands around each of them.
        joints: what stands between each two lines: the line's end, and margins.
        tags: what is markup in a document that escapes nothing; None if `lines` are what is sent.
    """

    lines: tuple[str, ...]
    joints: tuple[str, ...] = ()
    tags: re.Pattern[str] | None = None

    @property
    def text(self) -> str:
        """What is translated, lines joined; where there are `tags`, the rest escaped for html."""
        text = joined(self.lines)
        return text if self.tags is None else _outside(self.tags, text, _escape)

    @property
    def source(self) -> str:
        """What it is in the document."""
        return _put_together(self.lines, self.joints)

    def written(self, target: str) -> str:
        """Return what stands in the document instead: as many lines, if it has words for them."""
        if self.tags is not None:
            target = _outside(self.tags, target, html.unescape)
        if not self.joints:
            return target
        target = _SPACE.sub(" ", target) if "\n" in target or "\r" in target else target
        return _put_together(_broken(target, self.lines), self.joints)


def joined(lines: Sequence[str]) -> str:
    """Return lines as one, with a space between words of scripts that part words so."""
    return _put_together(lines, [_between(*pair) for pair in pairwise(lines)])


def may_be_joined(lines: Sequence[str]) -> bool:
    """Whether the line that they make could be broken where they are: few, no tag over two."""
    return len(lines) <= _MOST_LINES and set(_ends(lines)) <= {
        begin for begin, _ in _gaps(joined(lines))
    }


def _put_together(lines: Sequence[str], joints: Sequence[str]) -> str:
    more = (joint + line for joint, line in zip(joints, lines[1:], strict=False))
    return lines[0] + "".join(more)


def _outside(tags: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    parts, begin = [], 0
    for found in tags.finditer(text):
        parts += [change(text[begin : found.start()]), found[0]]
        begin = found.end()
    return "".join([*parts, change(text[begin:])])


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _between(line: str, following: str) -> str:
    return "" if _runs_on(line[-1], following[0]) else " "


def _ends(lines: Sequence[str]) -> list[int]:
    """Return where in the joined lines each of them ends, the last one left out."""
    sizes = [len(line) + len(_between(line, following)) for line, following in pairwise(lines)]
    begins = accumulate(sizes, initial=0)
    return [begin + len(line) for begin, line in zip(begins, lines[:-1], strict=False)]


def _gaps(text: str) -> list[tuple[int, int]]:
    """Return where `text` may be broken: white space, and between characters that run on."""
    is_inside = bytearray(len(text) + 1)
    for found in _MARKUP.finditer(text):
        is_inside[found.start() + 1 : found.end()] = bytes([1]) * (len(found[0]) - 1)
    spaces = [found.span() for found in _SPACE.finditer(text)]
    between = [(at, at) for at in range(1, len(text)) if _runs_on(text[at - 1], text[at])]
    return sorted(gap for gap in spaces + between if not is_inside[gap[0]])


def _runs_on(before: str, after: str) -> bool:
    """Whether a script that writes no spaces goes on here."""
    return _is_unspaced(after) and (_is_unspaced(before) or before in _UNSPACED_PUNCTUATION)


def _is_unspaced(character: str) -> bool:
    return (
        character.isalpha()
        and unicodedata.east_asian_width(character) == "W"
        and not unicodedata.name(character, "").startswith("HANGUL")
    )


def _broken(target: str, lines: Sequence[str]) -> list[str]:
    """Break `target` where `lines` were broken, in proportion, after punctuation if they were."""
    gaps, ends, whole = _gaps(target), _ends(lines), len(joined(lines))
    chosen: list[tuple[int, int]] = []
    for number, end in enumerate(ends):
        left = len(ends) - number - 1  # breaks that still need a gap behind this one
        among = gaps[: max(1, len(gaps) - left)]
        if not gaps:
            break
        ideal = end / whole * len(target)
        pause = _PAUSE * len(target) if lines[number].endswith(_PUNCTUATION) else 0.0
        costs = [_cost(gap, target, ideal, pause) for gap in among]
        at = costs.index(min(costs))
        chosen.append(gaps[at])
        gaps = gaps[at + 1 :]
    begins = [0, *(end for _, end in chosen)]
    return [
        target[begin:end]
        for begin, end in zip(begins, [*(begin for begin, _ in chosen), len(target)], strict=True)
    ]


def _cost(gap: tuple[int, int], target: str, ideal: float, pause: float) -> float:
    begin = gap[0]
    return abs(begin - ideal) - (pause if target[begin - 1] in _PUNCTUATION else 0.0)
