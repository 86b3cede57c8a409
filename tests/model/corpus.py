"""Lines of text to tokenise: many scripts, odd characters, and what looks like special tokens."""

import lzma
import random
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

from tests.model.vocabularies import sentences

SHARED = Path(__file__).parents[3] / "shared"
SPECIAL = [
    *("</s>", "<s>", "<pad>", "<unk>", "<mask>", "<mask_1>", "<mask_2>", "<unk_3>", "<0x41>"),
    *(">>fra<<", ">>deu<<", ">>", "<<", "__en__", "__de__", "__", "<2de>", "<2xx>", "deu_Latn"),
    *(
        "eng_Latn",
        "de_DE",
        "en_XX",
        "<extra_id_0>",
        "<extra_id_99>",
        "<",
        "/s>",
        "▁",
        "▁▁",
        "<／s>",
    ),
]
ODD = [
    *(" ", "  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u2009", "\u200b", "\u200d"),
    *("\u3000", "\u2028", "\u0085", "\ufeff", "\x00", "\x07", "\x7f", "\ufffd", "\u00ad"),
    *("\u0301", "\u0308", "\u0327", "e\u0301", "a\u0308\u0323", "ﬁ", "Ａ", "½", "①", "ß", "ẞ", "Ǆ"),
    *("🙂", "👍🏽", "👩‍👩‍👧", "🇩🇪", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "\ufe0f", "ひ\u3099", "가", "\u1100\u1161"),
    *(" . ", " , ", " ! ", " ? ", " ' ", " n't", " 'm", " 's", " 've", " 're", "don't", "…", "—"),
]
_RANGES = [
    *((0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x530, 0x58F)),
    *((0x590, 0x5F4), (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFA)),
    *((0xE01, 0xE5B), (0x10A0, 0x10FF), (0x1200, 0x12FF), (0x1780, 0x17FF), (0x1E00, 0x1FFE)),
    *((0x2000, 0x206F), (0x2190, 0x22FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)),
    *((0xF900, 0xFAFF), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF)),
]


@cache
def lines(count: int = 10_500) -> tuple[str, ...]:
    """Return `count` lines, half of them written, half of them drawn from ranges and oddities."""
    written = [*_shared(count // 4), *sentences(count, seed=2)]
    half = count // 2
    return (*written[:half], *islice(_drawn(random.Random(3)), count - half))


def _drawn(rng: random.Random) -> Iterator[str]:
    """Yield strings of letters, oddities and special tokens, none of them a surrogate."""
    yield from ["", *SPECIAL, *ODD]
    while True:
        low, high = rng.choice(_RANGES)
        letters = [chr(rng.randint(low, high)) for _ in range(rng.randint(1, 30))]
        parts = [rng.choice([" ", " ", *ODD]) if rng.random() < 0.2 else x for x in letters]
        if rng.random() < 0.3:
            parts.insert(rng.randint(0, len(parts)), rng.choice(SPECIAL))
        yield "".join(parts)


def _shared(count: int) -> Iterator[str]:
    """Yield sentences of the shared data, as many of each file, where it is present."""
    files = [*SHARED.glob("data/train.*.tsv.xz"), *SHARED.glob("data/flores/*")]
    for path in sorted(files):
        opened = lzma.open if path.suffix == ".xz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            for line in islice(file, count // len(files)):
                yield line.rstrip("\n").split("\t")[-1]
