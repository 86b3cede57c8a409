"""The sentences that everybody translates: held out, in a mixture of lengths, or of a given one."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

HELDOUT = Path(__file__).parent.parent / "tests" / "data" / "heldout.en-de.tsv"


def sentences(path: Path = HELDOUT) -> list[str]:
    """Read the English side of the held-out pairs."""
    return [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]


def mixture(lines: Sequence[str], count: int, seed: int) -> list[str]:
    """Return distinct sentences of mixed lengths: two of three as they are, the third joined.

    The joined ones are two to five held-out sentences with commas between them, since held-out
    sentences are short (median 10 tokens, at most 28) and real text has long ones.
    """
    chance, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        parts = 1 if chance.random() < 2 / 3 else chance.randint(2, 5)
        chosen = [line.rstrip(".!?").replace(".", "") for line in chance.sample(lines, parts)]
        found[", ".join(chosen) + "."] = None
    return list(found)


def of_tokens(lines: Sequence[str], tokens: int, seed: int, length: Callable[[str], int]) -> str:
    """Return one sentence without an end inside, of as close to `tokens` tokens as words allow.

    Args:
        length: of a text in tokens of the source; the result never has more than `tokens`.
    """
    chance = random.Random(seed)
    words = [w.strip(".,!?\"'").lower() for line in lines for w in line.split() if w.isalpha()]
    chosen: list[str] = []
    while length(" ".join([*chosen, "so"])) < tokens:
        chosen.append(chance.choice(words))
    while chosen and length(" ".join(chosen)) > tokens:
        chosen.pop()
    return " ".join(chosen)
