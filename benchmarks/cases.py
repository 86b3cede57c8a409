"""What engines called directly translate: sources, batches, beams."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sentencepiece

from benchmarks.bench import LEAST, TURNS, Bench
from benchmarks.direct import Ids, Work

SOURCE, TARGET = 30, 32  # tokens, where lengths are fixed
MANY_BEAMS = "batch 16, beam 4"


@dataclass(frozen=True, slots=True)
class Case:
    """A measurement.

    Attributes:
        key: of the goal that it decides, if it does.
        turns: at most, where fewer than usual suffice.
        threads_as: the case before it by which CTranslate2's threads are chosen, where trying
            them all would take longer than the turns.
    """

    name: str
    work: Work
    key: str | None = None
    turns: int = TURNS
    threads_as: str | None = None


def base_cases() -> list[Case]:
    """Marian base: sources of 30 tokens, and of mixed lengths; targets of 32, for all end there."""
    fixed, mixed = random_sources([SOURCE] * 64, seed=1), random_sources(_lengths(96), seed=2)

    def case(rows: int, count: int, beams: int = 1) -> Case:
        name = f"batch {rows}" + (f", beam {beams}" if beams > 1 else "")
        work = Work(sources=fixed[:count], rows=rows, beams=beams, longest=TARGET)
        if beams == 1:
            return Case(name, work, f"base_{rows}")
        if rows == 16:
            return Case(name, work, "base_beam_16")
        return Case(name, work, turns=LEAST, threads_as=MANY_BEAMS if rows == 64 else None)

    def mix(rows: int, count: int) -> Case:
        work = Work(sources=mixed[:count], rows=rows, at_once=True, longest=TARGET)
        return Case(f"batch {rows}, mixed sources", work, turns=LEAST)

    return [
        case(1, 4),
        case(4, 8),
        case(16, 32),
        case(64, 64),
        case(1, 2, beams=4),
        case(4, 4, beams=4),
        case(16, 16, beams=4),
        case(64, 64, beams=4),
        mix(16, 32),
        mix(64, 96),
    ]


def random_sources(
    lengths: Sequence[int], seed: int, *, language: int = 8000, end: int = 0
) -> list[Ids]:
    """Return distinct sources of ordinary pieces: a language token, pieces, the end."""
    chance = random.Random(seed)
    return [[language, *(chance.randrange(300, 7900) for _ in range(n - 2)), end] for n in lengths]


def _lengths(count: int) -> list[int]:
    """Return source lengths as they are in running text: log-normal, 6 to 90, median 25."""
    chance = random.Random(3)
    return [min(90, max(6, round(chance.lognormvariate(3.2, 0.5)))) for _ in range(count)]


def bundled_cases(bench: Bench) -> list[Case]:
    """The bundled model: sentences of mixed lengths; each target ends where it ends."""
    ids: dict[str, int] = json.loads((bench.bundled / "vocab.json").read_text(encoding="utf-8"))
    sources = _tokenised(bench.bundled, bench.mixed, ids)
    cases = []
    sizes_of = {1: {1: 16, 4: 48, 16: 160, 64: 320}, 4: {1: 8, 4: 24, 16: 64, 64: 128}}
    for beams, sizes in sizes_of.items():
        for rows, count in sizes.items():
            name = f"batch {rows}" + (f", beam {beams}" if beams > 1 else "")
            work = Work(sources=sources[:count], rows=rows, at_once=True, beams=beams)
            is_largest = rows * beams == 256
            turns, threads_as = (LEAST, MANY_BEAMS) if is_largest else (TURNS, None)
            cases.append(Case(name, work, turns=turns, threads_as=threads_as))
    return cases


def _tokenised(checkpoint: Path, texts: Sequence[str], ids: Mapping[str, int]) -> list[Ids]:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "source.spm"))
    return [
        [ids[">>de<<"], *(ids.get(p, ids["<unk>"]) for p in pieces.encode(t, out_type=str)), 0]
        for t in texts
    ]


def fewer(case: Case, count: int) -> Case:
    """Return the case with its first sources, for engines that are slower."""
    return Case(case.name, replace(case.work, sources=case.work.sources[:count]), turns=LEAST)
