"""Writing a checkpoint in Hugging Face's Marian layout."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import MarianMTModel

_NEVER_STORED = ("embed_positions", "lm_head", "embed_tokens")  # derived or tied on load
_NOT_OF_THE_MODEL = (  # what transformers writes into every config
    "_attn_implementation_internal",
    "_name_or_path",
    "chunk_size_feed_forward",
    "forced_eos_token_id",
    "id2label",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "transformers_version",
    "use_cache",
)


def export(
    model: MarianMTModel, pieces: bytes, vocabulary: dict[str, int], folder: Path, half: bool = True
) -> None:
    """Write config, generation config, weights and tokenizer files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if not any(part in name for part in _NEVER_STORED)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in [
        ("config.json", _config(model, "float16" if half else "float32")),
        ("generation_config.json", _generation(model.config.pad_token_id)),
        ("tokenizer_config.json", _tokenizer(vocabulary)),
        ("vocab.json", vocabulary),
    ]:
        text = json.dumps(content, indent=None if name == "vocab.json" else 2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    (folder / "source.spm").write_bytes(pieces)
    (folder / "target.spm").write_bytes(pieces)


def _config(model: MarianMTModel, dtype: str) -> dict[str, Any]:
    """Return what transformers and CTranslate2 ask of a Marian config.json."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in _NOT_OF_THE_MODEL}
    return config | {
        "architectures": ["MarianMTModel"],
        "dtype": dtype,
        "static_position_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "add_bias_logits": False,
    }


def _generation(pad: int) -> dict[str, Any]:
    return {
        "bad_words_ids": [[pad]],
        "bos_token_id": None,
        "decoder_start_token_id": pad,
        "eos_token_id": 0,
        "max_length": 512,
        "num_beams": 1,
        "pad_token_id": pad,
    }


def _tokenizer(vocabulary: dict[str, int]) -> dict[str, Any]:
    languages = sorted(token[2:-2] for token in vocabulary if token.startswith(">>"))
    return {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": "+".join(languages),
        "target_lang": "+".join(languages),
        "separate_vocabs": False,
        "model_max_length": 512,
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
