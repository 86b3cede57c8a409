"""`python -m training.evaluate`: BLEU and chrF of a checkpoint on held-out sentences."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import sacrebleu

from model import Arrival, DecodingOptions, Model, Precision, load


def translate(
    model: Model, sentences: Sequence[str], target: str, slots: int, beams: int = 1
) -> list[str]:
    """Translate sentences greedily or by beam search, keeping `slots` rows busy."""
    runner, tokenizer = model.runner, model.tokenizer
    source = next(code for code, targets in tokenizer.targets.items() if target in targets)
    prompts = [tokenizer.prompt(sentence, source, target) for sentence in sentences]
    waiting = [(index, prompt.source) for index, prompt in enumerate(prompts)]
    targets: list[list[int]] = [[] for _ in sentences]
    free = [tuple(range(row, row + beams)) for row in range(0, slots - beams + 1, beams)]
    running: dict[tuple[int, ...], tuple[int, int]] = {}  # rows: sentence, longest target
    while waiting or running:
        arrivals = []
        while free and waiting:
            rows, (index, ids) = free.pop(), waiting.pop()
            longest = min(2 * len(ids) + 32, model.card.max_target)
            running[rows] = (index, longest)
            options = DecodingOptions(max_new_tokens=longest, num_beams=beams)
            arrivals.append(Arrival(rows, ids, options))
        if arrivals:
            runner.admit(arrivals)
        names = [rows[0] for rows in running]
        for rows, step in zip(list(running), runner.launch(names).result(), strict=True):
            index, longest = running[rows]
            targets[index] += step.tokens
            has_ended = runner.config.eos in step.tokens or len(targets[index]) >= longest
            if step.hypotheses:
                targets[index] = [*step.hypotheses[0].tokens]
            if has_ended or step.hypotheses:
                runner.release([rows[0]])
                free.append(rows)
                del running[rows]
    return [tokenizer.decode(ids) for ids in targets]


def main() -> None:
    """Print one JSON line per direction, with sacreBLEU's signatures."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--held-out", type=Path, default=Path("tests/data/heldout.en-de.tsv"))
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--beams", type=int, default=1, help="1 is greedy")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    options = parser.parse_args()
    lines = options.held_out.read_text(encoding="utf-8").splitlines()
    english, other = zip(*(line.split("\t") for line in lines), strict=True)
    language = options.held_out.stem.rpartition("-")[2]
    model = load(options.checkpoint, slots=options.slots, precision=options.precision)
    for name, sources, references, target in [
        (f"en-{language}", english, other, language),
        (f"{language}-en", other, english, "en"),
    ]:
        found = translate(model, sources, target, options.slots, options.beams)
        bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
        scores = {
            "direction": name,
            "beams": options.beams,
            "precision": options.precision,
            "sentences": len(found),
            "bleu": round(bleu.corpus_score(found, [references]).score, 2),
            "chrf": round(chrf.corpus_score(found, [references]).score, 2),
            "bleu_signature": str(bleu.get_signature()),
            "chrf_signature": str(chrf.get_signature()),
        }
        print(json.dumps(scores))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
