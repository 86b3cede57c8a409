"""`python -m benchmarks.commit_lag`: how long a token of a beam search waits until it is certain.

A token can be sent once every possible outcome of the search shares it. Its lag is the number of
steps from the one that could have chosen it, had the search been greedy, to the one that made it
certain; what is certain only with the end lags until the last step.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model import BUNDLED, Arrival, DecodingOptions, Model, load

HELDOUT = Path(__file__).parent.parent / "tests" / "data" / "heldout.en-de.tsv"


@dataclass(frozen=True)
class Search:
    """One finished search: the step at which each token of the best hypothesis became certain."""

    certain_at: list[int]
    steps: int

    @property
    def lags(self) -> list[int]:
        """Steps that each token waited."""
        return [at - number for number, at in enumerate(self.certain_at, start=1)]

    @property
    def early(self) -> int:
        """Tokens that were certain before the end."""
        return sum(at < self.steps for at in self.certain_at)


def search(model: Model, source: tuple[int, ...], beams: int) -> Search:
    """Decode one source with the model's own length limits."""
    longest = min(2 * len(source) + 32, model.card.max_target)
    options = DecodingOptions(max_new_tokens=longest, num_beams=beams)
    model.runner.admit([Arrival(tuple(range(beams)), source, options)])
    certain_at: list[int] = []
    step, number = None, 0
    while step is None or not step.hypotheses:
        (step,) = model.runner.launch([0]).result()
        number += 1
        certain_at += [number] * len(step.tokens)
    model.runner.release([0])
    length = len(step.hypotheses[0].tokens)
    return Search(certain_at + [number] * (length - len(certain_at)), number)


def row(beams: int, found: Sequence[Search]) -> str:
    """Return a row of the table over all searches with so many beams."""
    lags = sorted(lag for one in found for lag in one.lags)
    early = sum(one.early for one in found) / len(lags)
    first = statistics.median(one.certain_at[0] / one.steps for one in found if one.certain_at)
    return (
        f"| {beams} | {len(lags)} | {statistics.mean(lags):.2f} | {statistics.median(lags):.0f} "
        f"| {lags[int(0.95 * len(lags))]} | {early:.0%} | {first:.2f} |"
    )


def main() -> None:
    """Print a table over held-out sentences of both directions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commit_lag", description=__doc__)
    parser.add_argument("--sentences", type=int, default=200, help="of each direction")
    parser.add_argument("--beams", type=int, nargs="+", default=[2, 4, 8])
    options = parser.parse_args()
    model = load(BUNDLED, slots=max(options.beams), latent_bytes=2**26)
    pairs = [line.split("\t") for line in HELDOUT.read_text(encoding="utf-8").splitlines()]
    chosen = pairs[: options.sentences]
    sources = [model.tokenizer.prompt(english, "en", "de").source for english, _ in chosen]
    sources += [model.tokenizer.prompt(german, "de", "en").source for _, german in chosen]
    print("| beams | tokens | mean lag | median | p95 | certain before the end | first token at |")  # noqa: T201
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    for beams in options.beams:
        print(row(beams, [search(model, source, beams) for source in sources]))  # noqa: T201


if __name__ == "__main__":
    main()
