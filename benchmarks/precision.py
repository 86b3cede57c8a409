"""`python -m benchmarks.precision`: what each precision loses, weighs and gains, as two tables.

Speeds are taken in turns, precision by precision, and compared within a turn, so that a busy
machine slows all of them alike; the tables hold medians.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import sacrebleu
import torch
import torch.nn.functional as F

from model import BUNDLED, Model, Precision, load
from model.backends.cpu import Int8Linear
from model.native.network import NativeNetwork
from model.runner import Network
from training.evaluate import translate

ROOT = Path(__file__).parent.parent
SHAPES = [(256, 256), (256, 1024), (512, 2048), (2048, 512), (256, 8003), (512, 58_101)]
ROWS = [1, 8, 16, 64]


@dataclass
class Result:
    """One precision's figures: quality by direction, speed by rows."""

    weights_mb: float
    translations: dict[str, list[str]] = field(default_factory=dict)
    bleu: dict[str, float] = field(default_factory=dict)
    chrf: dict[str, float] = field(default_factory=dict)
    seconds: dict[int, list[float]] = field(default_factory=dict)


def weights_mb(network: Network) -> float:
    """Return the megabytes of weights, tables and packed layers, each counted once."""
    if isinstance(network, NativeNetwork):
        return network.bytes / 1e6
    held = {t.data_ptr(): t.nbytes for t in [*network.parameters(), *network.buffers()]}
    packed = [m for m in network.modules() if isinstance(m, Int8Linear)]
    # a byte for each weight; of each channel a scale (4), a zero point (4) and a sum (4)
    return (sum(held.values()) + sum(m.out_features * (m.in_features + 12) for m in packed)) / 1e6


def in_turns(
    subjects: Mapping[str, Callable[[], object]], turns: int, repeats: int = 1
) -> dict[str, list[float]]:
    """Return the seconds that each subject took in each turn."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for subject in subjects.values():
        subject()  # warm up
    for _ in range(turns):
        for name, subject in subjects.items():
            began = time.perf_counter()
            for _ in range(repeats):
                subject()
            seconds[name].append((time.perf_counter() - began) / repeats)
    return seconds


def paired(reference: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of how many times as fast `other` was in the same turn."""
    return statistics.median(r / o for r, o in zip(reference, other, strict=True))


def measure_quality(
    models: Mapping[str, Model], results: Mapping[str, Result], lines: Sequence[tuple[str, str]]
) -> None:
    """Translate the held-out lines both ways, greedily."""
    english, german = zip(*lines, strict=True)
    directions = [("en-de", english, german, "de"), ("de-en", german, english, "en")]
    for precision, model in models.items():
        for name, sources, references, target in directions:
            found = translate(model, sources, target, slots=64)
            result = results[precision]
            result.translations[name] = found
            result.bleu[name] = sacrebleu.corpus_bleu(found, [references]).score
            result.chrf[name] = sacrebleu.corpus_chrf(found, [references]).score


def measure_speed(
    models: Mapping[str, Model],
    results: Mapping[str, Result],
    lines: Sequence[tuple[str, str]],
    turns: int,
) -> None:
    """Translate the same few sentences with 1, 8 and 64 rows, precision by precision in turns."""
    for rows, count in ((1, 4), (8, 32), (64, 128)):
        sources = [english for english, _ in lines[:count]]

        subjects = {
            precision: functools.partial(translate, model, sources, "de", rows)
            for precision, model in models.items()
        }
        for precision, seconds in in_turns(subjects, turns).items():
            results[precision].seconds[rows] = seconds


def print_models(results: Mapping[str, Result]) -> None:
    """Print the table of precisions."""
    reference = results["float32"]
    print(  # noqa: T201 - the command's output
        "| precision | BLEU en-de | BLEU de-en | chrF en-de | chrF de-en | as float32 | weights, MB"
        " | speed, 1 row | 8 rows | 64 rows |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for precision, result in results.items():
        pairs = [
            (ours, exact)
            for name, translations in result.translations.items()
            for ours, exact in zip(translations, reference.translations[name], strict=True)
        ]
        same = sum(ours == exact for ours, exact in pairs) / len(pairs)
        scores = [*result.bleu.values(), *result.chrf.values()]
        speeds = [paired(reference.seconds[r], result.seconds[r]) for r in result.seconds]
        print(  # noqa: T201
            f"| {precision} | {' | '.join(f'{score:.2f}' for score in scores)} | {same:.1%} "
            f"| {result.weights_mb:.1f} | {' | '.join(f'{speed:.2f}' for speed in speeds)} |"
        )


@torch.inference_mode()
def print_layers(turns: int) -> None:
    """Print the table of single linear layers: how many times as fast int8 is as float32."""
    print(  # noqa: T201
        f"\n| layer | {' | '.join(f'{rows} rows, µs | speed' for rows in ROWS)} |\n"
        f"|---|{'--:|--:|' * len(ROWS)}"
    )
    for width, out in SHAPES:
        weight, bias = torch.randn(out, width) / width**0.5, torch.zeros(out)
        int8 = Int8Linear(weight, bias)
        cells = []
        for rows in ROWS:
            hidden = torch.randn(rows, width)
            subjects = {
                "float32": functools.partial(F.linear, hidden, weight, bias),
                "int8": functools.partial(int8, hidden),
            }
            repeats = max(1, 200_000 // (rows * out))
            seconds = in_turns(subjects, turns, repeats)
            microseconds = statistics.median(seconds["int8"]) * 1e6
            cells += [f"{microseconds:.0f}", f"{paired(seconds['float32'], seconds['int8']):.1f}"]
        print(f"| {width} x {out} | {' | '.join(cells)} |")  # noqa: T201


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED, help="translates en and de")
    parser.add_argument("--precisions", nargs="+", default=list(get_args(Precision)))
    parser.add_argument("--held-out", type=Path, default=ROOT / "tests/data/heldout.en-de.tsv")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = options.held_out.read_text(encoding="utf-8")
    lines = [(english, german) for english, german in (x.split("\t") for x in text.splitlines())]
    precisions = ["float32", *(p for p in options.precisions if p != "float32")]
    models = {p: load(options.checkpoint, slots=64, precision=p) for p in precisions}
    results = {p: Result(weights_mb(model.runner.network)) for p, model in models.items()}
    measure_quality(models, results, lines)
    measure_speed(models, results, lines, options.turns)
    print_models(results)
    print_layers(options.turns)


if __name__ == "__main__":
    main()
