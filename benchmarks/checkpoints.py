"""`python -m benchmarks.checkpoints`: what is measured, as each engine loads it.

Marian base is random: OPUS-MT's dimensions, with the bundled SentencePiece model and a vocabulary
filled up with made-up words. Its end token has so low a bias that only the limit ends a target, in
every engine: outputs of random weights have no length of their own.
"""

import argparse
import itertools
import json
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model import BUNDLED

_NEVER = -10_000.0  # added to the end token's logit; float16 holds it
_STACKS = (("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"]))
WIDTH, HIDDEN, LAYERS, HEADS, VOCABULARY = 512, 2048, 6, 8, 58_101


def write_marian_base(folder: Path) -> None:
    """Write the checkpoint in Hugging Face's layout: 74 M parameters in float16."""
    folder.mkdir(parents=True)
    for name in ("source.spm", "target.spm", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, folder)
    ids: dict[str, int] = json.loads((BUNDLED / "vocab.json").read_text(encoding="utf-8"))
    _write_json(folder / "vocab.json", filled_up(ids, VOCABULARY))
    pad = VOCABULARY - 1
    config = json.loads((BUNDLED / "config.json").read_text(encoding="utf-8"))
    tokens = {"decoder_start_token_id": pad, "pad_token_id": pad, "eos_token_id": ids["</s>"]}
    config |= tokens | {
        "d_model": WIDTH,
        "vocab_size": VOCABULARY,
        "decoder_vocab_size": VOCABULARY,
        "activation_function": "swish",
    }
    for stack, _ in _STACKS:
        config[f"{stack}_layers"], config[f"{stack}_attention_heads"] = LAYERS, HEADS
        config[f"{stack}_ffn_dim"] = HIDDEN
    _write_json(folder / "config.json", config)
    generation = {**tokens, "bad_words_ids": [[pad]], "max_length": 512, "num_beams": 1}
    _write_json(folder / "generation_config.json", generation)
    save_file(_weights(ids["</s>"]), folder / "model.safetensors", {"format": "pt"})


def filled_up(ids: dict[str, int], size: int) -> dict[str, int]:
    """Return a vocabulary of `size` entries: made-up words before the padding, which stays last."""
    kept = {piece: index for piece, index in ids.items() if piece != "<pad>"}
    for word in made_up_words():
        if len(kept) == size - 1:
            break
        kept.setdefault(word, len(kept))
    return {**kept, "<pad>": size - 1}


def made_up_words() -> Iterator[str]:
    """Yield distinct pieces that begin a word."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    return ("\u2581" + "".join(parts) for parts in itertools.product(syllables, repeat=3))


def _weights(eos: int) -> dict[str, Tensor]:
    """Return random tensors by the names that Marian's checkpoints use."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}

    def add(name: str, out: int, width: int) -> None:
        tensors[f"{name}.weight"] = (torch.randn(out, width) * width**-0.5).half()
        tensors[f"{name}.bias"] = torch.zeros(out).half()

    def add_norm(name: str) -> None:
        tensors[f"{name}.weight"] = torch.ones(WIDTH).half()
        tensors[f"{name}.bias"] = torch.zeros(WIDTH).half()

    add("model.shared", VOCABULARY, WIDTH)
    del tensors["model.shared.bias"]
    for stack, attentions in _STACKS:
        for index in range(LAYERS):
            layer = f"model.{stack}.layers.{index}"
            for attention in attentions:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    add(f"{layer}.{attention}.{part}", WIDTH, WIDTH)
                add_norm(f"{layer}.{attention}_layer_norm")
            add(f"{layer}.fc1", HIDDEN, WIDTH)
            add(f"{layer}.fc2", WIDTH, HIDDEN)
            add_norm(f"{layer}.final_layer_norm")
    tensors["final_logits_bias"] = torch.zeros(1, VOCABULARY).half()
    tensors["final_logits_bias"][0, eos] = _NEVER
    return tensors


def convert_for_ctranslate2(checkpoint: Path, folder: Path, quantization: str | None) -> None:
    """Convert with CTranslate2's own converter; SentencePiece models, if any, come beside."""
    warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
    import transformers
    from ctranslate2.converters import TransformersConverter

    transformers.utils.logging.disable_progress_bar()
    TransformersConverter(str(checkpoint)).convert(str(folder), quantization=quantization)
    for path in checkpoint.glob("*.spm"):
        shutil.copy(path, folder)


def write_argos_packages(converted: Path, folder: Path) -> None:
    """Write the bundled checkpoint as Argos packages of both directions, and unpack them.

    Argos ships int8 models; it fetches an index from the network where it finds fewer than two.
    """
    names = {"en": "English", "de": "German"}
    for source, target in (("en", "de"), ("de", "en")):
        package = folder / f"{source}_{target}.argosmodel"
        metadata = {
            "package_version": "1.0",
            "argos_version": "1.9",
            "from_code": source,
            "from_name": names[source],
            "to_code": target,
            "to_name": names[target],
        }
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(package, "w") as archive:
            inside = f"translate-{source}_{target}-1_0"
            archive.writestr(f"{inside}/metadata.json", json.dumps(metadata))
            archive.write(converted / "source.spm", f"{inside}/sentencepiece.model")
            for path in [*sorted(converted.glob("*.json")), converted / "model.bin"]:
                archive.write(path, f"{inside}/model/{path.name}")
        with zipfile.ZipFile(package) as archive:
            archive.extractall(folder / "packages")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def make(folder: Path, bundled: Path) -> None:
    """Write what is not there yet, or came of another checkpoint."""
    if not (folder / "base").exists():
        with whole(folder / "base") as partial:
            write_marian_base(partial)
    stamp = f"{bundled} {(bundled / 'model.safetensors').stat().st_mtime_ns}"
    made_of = folder / "bundled.txt"
    if not made_of.exists() or made_of.read_text() != stamp:
        for name in ("ct2-bundled", "argos"):
            shutil.rmtree(folder / name, ignore_errors=True)
    for name, checkpoint in (("ct2-base", folder / "base"), ("ct2-bundled", bundled)):
        if not (folder / name).exists():
            with whole(folder / name) as partial:
                convert_for_ctranslate2(checkpoint, partial, None)
    if not (folder / "argos").exists():
        with whole(folder / "argos") as partial:
            convert_for_ctranslate2(bundled, partial / "int8", "int8")
            write_argos_packages(partial / "int8", partial)
    made_of.write_text(stamp)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Give another name to write to, so that `folder` never exists in part."""
    partial = folder.with_name(f"partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    partial.rename(folder)


def main() -> None:
    """Make the checkpoints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundled", type=Path, default=BUNDLED)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    make(options.folder, options.bundled)


if __name__ == "__main__":
    main()
