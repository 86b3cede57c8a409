"""Tiny random networks whose greedy outputs vary, as folders and as modules."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from model import BUNDLED
from model.config import ModelConfig
from model.families import marian
from model.kv_cache import KVCache
from model.runner import Network
from model.transformer import EncoderDecoder

EOS, PAD = 0, 95
BART_LIKE: dict[str, Any] = {
    "has_embedding_norm": True,
    "positions": "learned",
    "position_offset": 2,
    "activation": "gelu",
    "embedding_scale": 1.0,
}
TENSOR2TENSOR: dict[str, Any] = {
    "positions": "tensor2tensor",
    "position_offset": PAD + 1,
    "norm": "pre",
    "has_final_norm": True,
}
T5_LIKE: dict[str, Any] = {
    "norm": "pre",
    "norm_kind": "rms",
    "norm_epsilon": 1e-6,
    "has_final_norm": True,
    "has_linear_bias": False,
    "has_logits_bias": False,
    "is_attention_scaled": False,
    "is_gated": True,
    "activation": "gelu_new",
    "own_head_width": 24,  # not width / heads
    "embedding_scale": 1.0,
    "output_scale": 0.25,
    "positions": "relative",
    "relative_buckets": 16,
    "relative_limit": 40,
    "keeps_down_float32": True,
}


def eager(network: Network) -> EncoderDecoder:
    """Return the PyTorch module that a float precision is."""
    assert isinstance(network, EncoderDecoder)
    return network


def tiny_config(**changes: Any) -> ModelConfig:
    shapes: dict[str, Any] = {
        "vocabulary": 96,
        "width": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_heads": 2,  # of 16: narrower ones give other bits at other cache lengths
        "decoder_heads": 2,
        "encoder_hidden": 64,
        "decoder_hidden": 64,
        "activation": "relu",
        "norm": "post",
        "has_final_norm": False,
        "has_logits_bias": True,
        "embedding_scale": 32**0.5,
        "max_positions": 512,
        "max_target": 512,
        "start": PAD,
        "eos": EOS,
        "pad": PAD,
        "suppressed": (PAD,),
    }
    return ModelConfig(**shapes | changes)


def randomise(network: EncoderDecoder, *, eos_bias: float = 2.5) -> EncoderDecoder:
    """Fill `network` so that its next token depends on the source, the position and the target.

    Sharp attention and small feed-forward layers keep it from falling into a constant; random
    signs in the decoder's last norm keep the tied embedding from repeating the newest token.
    """
    config, generator = network.config, torch.Generator().manual_seed(0)
    sharp = 4.0 if config.is_attention_scaled else 4.0 / config.head_dim**0.25
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            value = 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise
        elif name == "embedding.weight":
            value = 0.3 * noise
        elif parameter.dim() == 1:
            value = 0.1 * noise
        else:
            gain = 0.5 if "feed_forward" in name else 1.5
            gain = sharp if "query" in name or "key" in name else gain
            value = noise * gain / parameter.shape[1] ** 0.5
        parameter.data.copy_(value)
    branch = network.decoder[-1].get_submodule("feed_forward_branch.norm")
    last = (network.decoder_norm if config.has_final_norm else branch).get_parameter("weight")
    last.data *= torch.randn(last.shape, generator=generator).sign()
    if network.logits_bias is not None:
        network.logits_bias.data[config.eos] += eos_bias
    return network.requires_grad_(False).eval()


def tiny_network(**changes: Any) -> EncoderDecoder:
    return randomise(EncoderDecoder(tiny_config(**changes)))


def write_tiny_checkpoint(folder: Path) -> None:
    """Write a random Marian checkpoint that shares the bundled model's vocabulary."""
    folder.mkdir()
    for name in ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, folder)
    shutil.copy(BUNDLED / "generation_config.json", folder)
    published = json.loads((BUNDLED / "config.json").read_text()) | {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    }
    (folder / "config.json").write_text(json.dumps(published))
    network = randomise(EncoderDecoder(marian.config(published, {})), eos_bias=4.0)
    parameters = dict(network.named_parameters())  # each table once
    tensors = {
        marian.weight_names(name, network.config)[0]: parameter.data
        for name, parameter in parameters.items()
    }
    tensors["model.shared.weight"] = tensors.pop("model.decoder.embed_tokens.weight")
    tensors["final_logits_bias"] = tensors["final_logits_bias"][None]
    save_file(tensors, folder / "model.safetensors")


def cached_logits(
    network: EncoderDecoder, sources: list[tuple[int, ...]], target: torch.Tensor
) -> torch.Tensor:
    """Return the logits [rows, length, vocabulary] of `target` [rows, length], token by token."""
    rows, length = target.shape
    dtype, device = network.embedding.weight.dtype, torch.device("cpu")
    cache = KVCache(network.config, rows, max(map(len, sources)), length, dtype, device)
    for row, source in enumerate(sources):
        latents = network.encode(torch.tensor([source]), torch.tensor([len(source)]))
        pairs = network.source_keys_values(latents)
        cache.add_source(source, [(keys[0], values[0]) for keys, values in pairs])
        cache.bind(row, source)
    steps = []
    for position in range(length):
        positions = torch.full((rows,), position)
        memory = cache.step(torch.arange(rows), positions)
        steps.append(network.decode(target[:, [position]], positions[:, None], memory))
    return torch.cat(steps, 1)
