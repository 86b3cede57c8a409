"""The models measured: their real dimensions with random weights, and toys of each family."""

from typing import Any

import torch
from torch import nn

from benchmarks.gpu.names import BART, NLLB, OPUS, T5
from model.config import ModelConfig
from model.families import bart, m2m100, marian, t5
from model.transformer import EncoderDecoder

_FAMILIES: dict[str, Any] = {OPUS: marian, NLLB: m2m100, BART: bart, T5: t5}


def _fairseq(width: int, layers: int, heads: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    published: dict[str, Any] = {
        "d_model": width,
        "vocab_size": vocabulary,
        "max_position_embeddings": 1024,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "activation_function": "relu",
        "scale_embedding": True,
        "tie_word_embeddings": True,
    }
    for stack in ("encoder", "decoder"):
        published[f"{stack}_layers"] = layers
        published[f"{stack}_attention_heads"] = heads
        published[f"{stack}_ffn_dim"] = hidden
    return published


def _t5(width: int, layers: int, heads: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    return {
        "d_model": width,
        "d_kv": 64,
        "d_ff": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "vocab_size": vocabulary,
        "n_positions": 512,
        "feed_forward_proj": "relu",
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }


_PUBLISHED: dict[str, dict[str, Any]] = {
    OPUS: _fairseq(512, 6, 8, 2048, 58_101)
    | {"activation_function": "swish", "max_position_embeddings": 512},
    NLLB: _fairseq(1024, 12, 16, 4096, 256_206),
    BART: _fairseq(1024, 12, 16, 4096, 50_264)
    | {"activation_function": "gelu", "scale_embedding": False},
    T5: _t5(512, 6, 8, 2048, 32_128),
}
_TOY = (128, 2, 2, 192, 509)  # heads as wide as the real ones, and a vocabulary that is not even


def config(name: str, *, is_tiny: bool = False) -> ModelConfig:
    """Return a model's description; the toy one differs in its sizes only."""
    published = _PUBLISHED[name]
    if is_tiny:
        toy = _t5(*_TOY) if name == T5 else _fairseq(*_TOY)
        kept = ("activation_function", "scale_embedding", "feed_forward_proj")
        published = toy | {key: published[key] for key in kept if key in published}
    described: ModelConfig = _FAMILIES[name].config(published, {})
    return described


def precision(described: ModelConfig) -> torch.dtype:
    """Return the half precision that a family is safe in."""
    return torch.float16 if described.is_float16_safe else torch.bfloat16


def network(
    described: ModelConfig, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> EncoderDecoder:
    """Return a network of random weights, drawn on the device."""
    torch.manual_seed(seed)
    with torch.device(device), torch.no_grad():
        built = EncoderDecoder(described)
        for parameter in built.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return built.to(device=device, dtype=dtype).requires_grad_(False).eval()
