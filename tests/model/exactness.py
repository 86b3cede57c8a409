"""How exactly each family computes what transformers computes; run it to print the table."""

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from model import DecodingOptions, Runner
from model.building import build
from model.checkpoint import Checkpoint
from tests.model.driver import Outcome, Request, run_together
from tests.model.reference import FAMILIES, logit_error, random_sources, reference, write

LENGTHS = (1, 2, 5, 9, 17, 30, 44, 61)
TOKENS = 24
SEARCHES: list[dict[str, Any]] = [
    {"length_penalty": 1.0, "early_stopping": False},
    {"length_penalty": 2.0, "early_stopping": True},
    {"length_penalty": 0.6, "early_stopping": "never"},
]
BEAMS = 4


@dataclass(frozen=True)
class Row:
    """One family against transformers: how many of how many targets and hypotheses are equal."""

    name: str
    logit_error: float
    greedy: tuple[int, int]
    beam: tuple[int, int]

    def __str__(self) -> str:
        greedy, beam = (f"{equal} of {all_}" for equal, all_ in (self.greedy, self.beam))
        return f"| {self.name} | {self.logit_error:.1e} | {greedy} | {beam} |"


HEADING = (
    "| family | largest logit error | greedy targets equal | beam hypotheses equal |\n"
    "|---|---|---|---|"
)


def row(name: str, folder: Path) -> Row:
    """Compare a family's checkpoint in `folder`, which `write` has saved."""
    theirs = reference(folder)
    sources = random_sources(theirs.config.vocab_size, LENGTHS)
    greedy = _equal(folder, theirs, sources, {})
    beams = [_equal(folder, theirs, sources, {**search, "num_beams": BEAMS}) for search in SEARCHES]
    total = sum(equal for equal, _ in beams), sum(all_ for _, all_ in beams)
    return Row(name, logit_error(name, folder), greedy, total)


@torch.inference_mode()
def _equal(
    folder: Path, theirs: Any, sources: list[list[int]], search: dict[str, Any]
) -> tuple[int, int]:
    """Decode all sources together; count the hypotheses that equal those found one by one."""
    network = build(Checkpoint(folder))
    config = network.config
    beams = search.get("num_beams", 1)
    options = DecodingOptions(
        **search,
        num_hypotheses=beams,
        max_new_tokens=TOKENS,
        forced_bos=config.forced_bos,
        forced_eos=config.forced_eos,
    )
    runner = Runner(network, rows=3 * beams, max_target=TOKENS, latent_bytes=0)
    requests = [Request(tuple(source), options) for source in sources]
    found = run_together(runner, requests, random.Random(0))
    equal = all_ = 0
    for source, outcome in zip(sources, found, strict=True):
        expected = _generated(theirs, source, search)
        ours = _targets(outcome, config.eos)
        equal += sum(mine == other for mine, other in zip(ours, expected, strict=True))
        all_ += len(expected)
    return equal, all_


def _targets(outcome: Outcome, eos: int) -> list[list[int]]:
    if outcome.hypotheses:
        return [[*hypothesis.tokens] for hypothesis in outcome.hypotheses]
    return [_before_end(outcome.tokens, eos)]


def _generated(model: Any, source: list[int], search: dict[str, Any]) -> list[list[int]]:
    beams = search.get("num_beams", 1)
    kept = (
        "pad_token_id",
        "eos_token_id",
        "bos_token_id",
        "decoder_start_token_id",
        "bad_words_ids",
        "forced_bos_token_id",
        "forced_eos_token_id",
    )
    fields = {name: getattr(model.generation_config, name) for name in kept}
    own = model.generation_config
    model.generation_config = GenerationConfig(  # an argument would leave some of its own in force
        **fields, **search, max_new_tokens=TOKENS, num_return_sequences=beams, do_sample=False
    )
    generated = model.generate(torch.tensor([source]))
    model.generation_config = own
    return [_before_end(row[1:].tolist(), model.config.eos_token_id) for row in generated]


def _before_end(tokens: list[int], eos: int) -> list[int]:
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


def main() -> None:
    """Print the table of all families."""
    print(HEADING)  # noqa: T201
    with tempfile.TemporaryDirectory() as parent:
        for name in FAMILIES:
            print(row(name, write(name, Path(parent) / name)))  # noqa: T201


if __name__ == "__main__":
    main()
