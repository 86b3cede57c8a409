"""`python -m benchmarks.nllb`: a checkpoint of NLLB-600M's dimensions, as each engine loads it.

Its weights are random. The embeddings of its special tokens are zero, so that their logits are 0,
far below the likeliest of 256,206: only the limit ends a target, in every engine.
"""

import argparse
import itertools
import json
from pathlib import Path

import tokenizers
from safetensors.torch import save_file

from benchmarks.checkpoints import convert_for_ctranslate2, made_up_words, whole
from benchmarks.size import config, weights

WIDTH, LAYERS, HIDDEN, VOCABULARY = 1024, 12, 4096, 256_206
PIECES = 256_001  # of the SentencePiece model, special ones included; languages come behind
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def write_nllb(
    folder: Path,
    *,
    width: int = WIDTH,
    layers: int = LAYERS,
    hidden: int = HIDDEN,
    vocabulary: int = VOCABULARY,
    pieces: int = PIECES,
) -> None:
    """Write the checkpoint in Hugging Face's layout: 615 M parameters in float16."""
    folder.mkdir(parents=True)
    published = config(width, layers, hidden, vocabulary)
    (folder / "config.json").write_text(json.dumps(published), encoding="utf-8")
    _tokenizer(pieces).save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "NllbTokenizer", "src_lang": "eng_Latn"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    tensors = weights(published)
    # Embeddings are tied, so that what a step reads would also be its likeliest token, over and
    # over. Signs in the last norm part the two, and the size makes what is read matter.
    tensors["model.decoder.layer_norm.weight"][::2] = -1
    tensors["model.shared.weight"] *= 4
    tensors["model.shared.weight"][: len(_SPECIAL)] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _tokenizer(pieces: int) -> tokenizers.Tokenizer:
    """Return a pipeline whose words nobody merges: ids are what is measured.

    Languages and the mask are not in it: whoever reads an NllbTokenizer adds them behind.
    """
    words = itertools.islice(made_up_words(), pieces - len(_SPECIAL))
    ids = {piece: index for index, piece in enumerate((*_SPECIAL, *words))}
    bpe = tokenizers.models.BPE(vocab=ids, merges=[], unk_token="<unk>", fuse_unk=True)
    pipeline = tokenizers.Tokenizer(bpe)
    pipeline.add_special_tokens(list(_SPECIAL))
    return pipeline


def make(folder: Path) -> None:
    """Write what is not there yet: 1.2 GB for Stele and Transformers, 1.2 GB for CTranslate2."""
    checkpoint, converted = folder / "nllb", folder / "ct2-nllb"
    if not checkpoint.exists():
        with whole(checkpoint) as partial:
            write_nllb(partial)
    if not converted.exists():
        with whole(converted) as partial:
            convert_for_ctranslate2(checkpoint, partial, None)


def main() -> None:
    """Make the checkpoint and its conversion."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nllb", description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    make(options.folder)


if __name__ == "__main__":
    main()
