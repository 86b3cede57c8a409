"""Writing a checkpoint in Hugging Face's Marian layout."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import MarianMTModel

_NEVER_STORED = ("embed_positions", "lm_head", "embed_tokens")  # derived or tied on load
_NOT_OF_THE_MODEL = (  # what transformers writes into every config
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
    pad = model.config.pad_token_id
    config = model.config.to_dict() | {
        "architectures": ["MarianMTModel"],
        "dtype": "float16" if half else "float32",
        "static_position_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "add_bias_logits": False,
    }
    for name in _NOT_OF_THE_MODEL:
        config.pop(name, None)
    config.pop("_attn_implementation_internal", None)
    generation = {
        "bad_words_ids": [[pad]],
        "bos_token_id": None,
        "decoder_start_token_id": pad,
        "eos_token_id": 0,
        "max_length": 512,
        "num_beams": 1,
        "pad_token_id": pad,
    }
    languages = sorted(token[2:-2] for token in vocabulary if token.startswith(">>"))
    tokenizer = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": "+".join(languages),
        "target_lang": "+".join(languages),
        "separate_vocabs": False,
        "model_max_length": 512,
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    for name, content in [
        ("config.json", config),
        ("generation_config.json", generation),
        ("tokenizer_config.json", tokenizer),
        ("vocab.json", vocabulary),
    ]:
        text = json.dumps(content, indent=None if name == "vocab.json" else 2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    (folder / "source.spm").write_bytes(pieces)
    (folder / "target.spm").write_bytes(pieces)
