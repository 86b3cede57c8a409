"""`python -m training.evaluate`: BLEU and chrF of a checkpoint on held-out sentences, greedy."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import sacrebleu

from model import Arrival, DecodingOptions, Model, load


def translate(model: Model, sentences: Sequence[str], target: str, slots: int) -> list[str]:
    """Translate sentences greedily, keeping `slots` rows busy."""
    runner, tokenizer = model.runner, model.tokenizer
    source = next(code for code, targets in tokenizer.targets.items() if target in targets)
    prompts = [tokenizer.prompt(sentence, source, target) for sentence in sentences]
    waiting = [(index, prompt.source) for index, prompt in enumerate(prompts)]
    targets: list[list[int]] = [[] for _ in sentences]
    rows: dict[int, tuple[int, int]] = {}  # row: sentence, longest target
    while waiting or rows:
        arrivals = []
        for row in range(slots):
            if row not in rows and waiting:
                index, ids = waiting.pop()
                longest = min(2 * len(ids) + 32, model.card.max_target)
                rows[row] = (index, longest)
                arrivals.append(Arrival((row,), ids, DecodingOptions(max_new_tokens=longest)))
        if arrivals:
            runner.admit(arrivals)
        running = list(rows)
        for row, step in zip(running, runner.launch(running).result(), strict=True):
            index, longest = rows[row]
            (token,) = step.tokens
            if token != runner.config.eos:
                targets[index].append(token)
            if token == runner.config.eos or len(targets[index]) >= longest:
                runner.release([row])
                del rows[row]
    return [tokenizer.decode(ids) for ids in targets]


def main() -> None:
    """Print one JSON line per direction, with sacreBLEU's signatures."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--held-out", type=Path, default=Path("tests/data/heldout.en-de.tsv"))
    parser.add_argument("--slots", type=int, default=64)
    options = parser.parse_args()
    lines = options.held_out.read_text(encoding="utf-8").splitlines()
    english, other = zip(*(line.split("\t") for line in lines), strict=True)
    language = options.held_out.stem.rpartition("-")[2]
    model = load(options.checkpoint, slots=options.slots, precision="float32")
    for name, sources, references, target in [
        (f"en-{language}", english, other, language),
        (f"{language}-en", other, english, "en"),
    ]:
        found = translate(model, sources, target, options.slots)
        bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
        scores = {
            "direction": name,
            "sentences": len(found),
            "bleu": round(bleu.corpus_score(found, [references]).score, 2),
            "chrf": round(chrf.corpus_score(found, [references]).score, 2),
            "bleu_signature": str(bleu.get_signature()),
            "chrf_signature": str(chrf.get_signature()),
        }
        print(json.dumps(scores))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
