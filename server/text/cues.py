"""Cues: what is said in subtitles, apart from numbers, timings, positions and blank lines."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from server.text.passages import Passage, may_be_joined
from server.text.rules import TextRules

Part = str | Passage  # what stays, or what is translated

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_TIMING = re.compile(r"\s*(?:\d+:)?\d\d?:\d\d[.,]\d{1,3}\s*-->")
_NUMBER = re.compile(r"\s*\d+\s*")
_TAG = re.compile(r"</?(?:i|b|u|s|font|em|strong)(?:\s[^<>]*)?>", re.IGNORECASE)
_UNPLACED = re.compile(r"<(?:c[.>\s]|\d)")  # WebVTT's classes and times within a cue
_POSITION = re.compile(r"\{\\[^{}]*\}")
_AROUND = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "♪♫"
_BEFORE = re.compile(  # positions, voices and music; the dash of somebody who speaks
    rf"(?:{_POSITION.pattern}|<v(?:[.\s][^<>]*)?>|[\s♪♫])*(?:[-\u2010-\u2015]+\s*)?"
)
_DASHED = re.compile(r"(?:\{\\[^{}]*\}|<[^<>]*>|\s)*[-\u2010-\u2015]")


def read(body: str, *, is_vtt: bool) -> tuple[list[Part], TextRules]:
    """Return what stays and what is translated, in order, and how that is read.

    Lines of a cue are one passage, because sentences go on over line ends, but for a line that
    begins with a dash: somebody else speaks. WebVTT is written as html is; SubRip has styles, and
    every other character stands for itself.

    Raises:
        ValueError: a cue of WebVTT holds times or classes, which a target has no place for.
    """
    has_markup = ("<" in body or "&" in body) if is_vtt else _TAG.search(body) is not None
    positions = tuple(sorted(set(_POSITION.findall(body))))
    rules = TextRules(markup="html" if has_markup else None, protected=positions)
    tags = _TAG if has_markup and not is_vtt else None
    found: list[Part] = []
    for line, lines in _cues(body, is_vtt):
        found += [line] if line else []
        for turn in _turns(lines):
            found += _passages(turn, tags)
    return found, rules


def _cues(body: str, is_vtt: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield each line that is not said, and the lines after it that are."""
    lines = _LINE.findall(body)
    before, said, is_cue = "", list[str](), False
    for number, (line, following) in enumerate(pairwise([*lines, ""]), start=1):
        is_timing = _TIMING.match(line) is not None
        if is_cue and line.strip() and not is_timing and not _is_number(line, following):
            if is_vtt and _UNPLACED.search(line):
                raise ValueError(
                    f"line {number}: times and classes within a cue cannot be kept; take them out"
                )
            said.append(line)
            continue
        yield before, said
        before, said = line, []
        # A blank line ends a cue of WebVTT, and a note may follow; SubRip knows no notes.
        is_cue = is_timing or (is_cue and not is_vtt)
    yield before, said


def _is_number(line: str, following: str) -> bool:
    """Whether a line is the number of the next cue, which no blank line precedes."""
    return _TIMING.match(following) is not None and _NUMBER.fullmatch(line) is not None


def _turns(lines: Sequence[str]) -> list[list[str]]:
    """Part a cue's lines by who speaks."""
    turns: list[list[str]] = []
    is_dialogue = any(_DASHED.match(line) for line in lines[1:])
    for line in lines:
        if turns and not (is_dialogue and _DASHED.match(line)):
            turns[-1].append(line)
        else:
            turns.append([line])
    return turns


def _passages(lines: Sequence[str], tags: re.Pattern[str] | None) -> list[Part]:
    """Return lines as one passage, or each as one where they cannot be put together."""
    split = [_parted(line) for line in lines]
    cores = tuple(core for _, core, _ in split)
    if not all(cores) or not may_be_joined(cores):
        if len(lines) > 1:
            return [part for line in lines for part in _passages([line], tags)]
        return list(lines)
    if not any(map(str.isalpha, "".join(cores))):
        return list(lines)
    afters = [after for _, _, after in split]
    befores = [before for before, _, _ in split]
    joints = tuple(after + before for after, before in zip(afters, befores[1:], strict=False))
    parts: list[Part] = [befores[0], Passage(cores, joints, tags), afters[-1]]
    return [part for part in parts if part]


def _parted(line: str) -> tuple[str, str, str]:
    """Return what stands before what is said, what is said, and what comes after."""
    found = _BEFORE.match(line)
    begin = found.end() if found else 0
    core = line[begin:].rstrip(_AROUND)
    return line[:begin], core, line[begin + len(core) :]
