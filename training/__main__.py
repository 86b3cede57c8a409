"""`python -m training`: from parallel text to a bundled checkpoint, in one resumable command."""

import argparse
import json
import logging
import os
from dataclasses import fields, replace
from pathlib import Path

import sentencepiece
import torch

from training.corpus import (
    Pair,
    Ragged,
    hold_out,
    read_pairs,
    train_sentencepiece,
    vocabulary,
    without,
)
from training.export import export
from training.network import build
from training.train import Recipe, Training, run

logger = logging.getLogger("training")


def arguments() -> argparse.Namespace:
    """Parse the command line; every recipe field is a flag."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "--pairs",
        action="append",
        required=True,
        metavar="de=FILE.tsv[.xz]",
        help="parallel text, English first; repeat for further languages",
    )
    parser.add_argument(
        "--tags", default="tatoeba,mlqe_pe,mucow", help="corpora to train on, by the third column"
    )
    parser.add_argument("--held-out-tag", default="tatoeba")
    parser.add_argument("--held-out", type=int, default=1000, help="test pairs per language")
    parser.add_argument("--held-out-dir", type=Path, default=Path("tests/data"))
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument(
        "--max-piece-count", type=int, default=80, help="longer sentences are left out"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, default=Path.home() / ".stele-training")
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument(
        "--export-only",
        action="store_true",
        help="write --out from the newest saved state, without training on",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    for field in fields(Recipe):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default
        )
    return parser.parse_args()


def load_corpora(options: argparse.Namespace) -> dict[str, list[Pair]]:
    """Read each language's pairs, write its held-out file, and return what is left."""
    tags = frozenset(options.tags.split(","))
    corpora = {}
    for item in options.pairs:
        language, _, path = item.partition("=")
        pairs = list(read_pairs(Path(path), tags | {options.held_out_tag}))
        held = hold_out(pairs, options.held_out_tag, options.held_out)
        options.held_out_dir.mkdir(parents=True, exist_ok=True)
        lines = [f"{pair.english}\t{pair.other}\n" for pair in held]
        target = options.held_out_dir / f"heldout.en-{language}.tsv"
        target.write_text("".join(lines), encoding="utf-8")
        corpora[language] = without((p for p in pairs if p.tag in tags), held)
        logger.info("en-%s: %d pairs to train on", language, len(corpora[language]))
    return corpora


def tokenizer(options: argparse.Namespace, corpora: dict[str, list[Pair]]) -> bytes:
    """Train the SentencePiece model once and keep it in the state directory."""
    path: Path = options.state_dir / "pieces.spm"
    if not path.exists():
        sides = ((p.english, p.other) for pairs in corpora.values() for p in pairs)
        path.write_bytes(
            train_sentencepiece((s for side in sides for s in side), options.vocabulary)
        )
    return path.read_bytes()


def encode(
    options: argparse.Namespace,
    corpora: dict[str, list[Pair]],
    pieces: sentencepiece.SentencePieceProcessor,
    ids: dict[str, int],
) -> tuple[Ragged, Ragged]:
    """Turn every pair into two examples: `>>xx<< source </s>` with `target </s>`, both ways."""
    sources, targets = [], []
    eos = ids["</s>"]
    for language, pairs in corpora.items():
        english = pieces.encode([pair.english for pair in pairs])
        other = pieces.encode([pair.other for pair in pairs])
        for one, two in zip(english, other, strict=True):
            if 0 < len(one) <= options.max_piece_count and 0 < len(two) <= options.max_piece_count:
                sources += [[ids[f">>{language}<<"], *one, eos], [ids[">>en<<"], *two, eos]]
                targets += [[*two, eos], [*one, eos]]
    return Ragged(sources), Ragged(targets)


def main() -> None:
    """Prepare, train, export."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = arguments()
    torch.set_num_threads(options.threads)
    options.state_dir.mkdir(parents=True, exist_ok=True)
    recipe = replace(Recipe(), **{f.name: getattr(options, f.name) for f in fields(Recipe)})
    corpora = load_corpora(options)
    serialised = tokenizer(options, corpora)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=serialised)
    ids = vocabulary(pieces, sorted({"en", *corpora}))
    everything = encode(options, corpora, pieces, ids)
    tokens = sum(int(side.lengths.sum()) for side in everything)
    logger.info("%d examples, %d tokens an epoch, %d types", len(everything[0]), tokens, len(ids))
    wanted = {
        language: [pair for pair in pairs if pair.tag == options.held_out_tag]
        for language, pairs in corpora.items()
    }
    focus = encode(options, wanted, pieces, ids)
    torch.manual_seed(recipe.seed)
    model = build(len(ids), recipe.width, recipe.encoder_layers, recipe.decoder_layers)
    training = Training(model, recipe, everything, focus, options.device)
    checkpoint = options.state_dir / "training.pt"
    if options.export_only:
        training.restore(checkpoint)
    else:
        run(training, checkpoint, options.save_every)
    with training.average.in_place_of(model):
        export(model, serialised, ids, options.out)
    logger.info("%s", json.dumps({"exported": str(options.out), "step": training.step}))


if __name__ == "__main__":
    main()
