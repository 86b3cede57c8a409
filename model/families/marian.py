"""Marian, the family of OPUS-MT: post-norm, sinusoidal positions, one shared embedding."""

from collections.abc import Mapping
from typing import Any

from model.config import Activation, ModelConfig, UnsupportedModel

DERIVED = ("embed_positions", "lm_head", "encoder.embed_tokens", "decoder.embed_tokens")

_ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "swish": "silu",
    "silu": "silu",
}
_TOP = {
    "embedding.weight": "model.shared.weight",
    "logits_bias": "final_logits_bias",
}
_IN_LAYER = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "attention_branch.norm": "self_attn_layer_norm",
    "cross.query": "encoder_attn.q_proj",
    "cross.key": "encoder_attn.k_proj",
    "cross.value": "encoder_attn.v_proj",
    "cross.out": "encoder_attn.out_proj",
    "cross_branch.norm": "encoder_attn_layer_norm",
    "feed_forward.up": "fc1",
    "feed_forward.down": "fc2",
    "feed_forward_branch.norm": "final_layer_norm",
}
_MUST_BE: dict[str, tuple[Any, ...]] = {  # what else the published configs may say
    "normalize_before": (False, None),
    "normalize_embedding": (False, None),
    "add_final_layer_norm": (False, None),
    "static_position_embeddings": (True, None),
    "share_encoder_decoder_embeddings": (True, None),
    "tie_word_embeddings": (True, None),
}


def config(published: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """Map a MarianMTModel's config.json and generation_config.json; refuses what is not Marian."""
    for key, allowed in _MUST_BE.items():
        if published.get(key) not in allowed:
            raise UnsupportedModel(f"config.json: {key} {published[key]!r} is not supported")
    if published["activation_function"] not in _ACTIVATIONS:
        raise UnsupportedModel(
            f"config.json: activation {published['activation_function']!r} is not supported"
        )
    if published.get("decoder_vocab_size") not in (None, published["vocab_size"]):
        raise UnsupportedModel(
            "config.json: separate source and target vocabularies are not supported"
        )
    width = published["d_model"]
    return ModelConfig(
        vocabulary=published["vocab_size"],
        width=width,
        encoder_layers=published["encoder_layers"],
        decoder_layers=published["decoder_layers"],
        encoder_heads=published["encoder_attention_heads"],
        decoder_heads=published["decoder_attention_heads"],
        encoder_hidden=published["encoder_ffn_dim"],
        decoder_hidden=published["decoder_ffn_dim"],
        activation=_ACTIVATIONS[published["activation_function"]],
        norm="post",
        final_norm=False,
        embedding_scale=width**0.5 if published.get("scale_embedding") else 1.0,
        max_positions=published["max_position_embeddings"],
        max_target=_max_target(published["max_position_embeddings"], generation),
        start=_token("decoder_start_token_id", published, generation),
        eos=_token("eos_token_id", published, generation),
        pad=_token("pad_token_id", published, generation),
        suppressed=_suppressed(generation),
    )


def _token(name: str, published: Mapping[str, Any], generation: Mapping[str, Any]) -> int:
    value = generation.get(name, published[name])
    only: int = value[0] if isinstance(value, list) and len(value) == 1 else value
    return only


def _max_target(positions: int, generation: Mapping[str, Any]) -> int:
    max_length = generation.get("max_length")
    return positions if max_length is None else min(positions, max_length)


def _suppressed(generation: Mapping[str, Any]) -> tuple[int, ...]:
    words = generation.get("bad_words_ids") or []
    if any(len(word) != 1 for word in words):
        raise UnsupportedModel("generation_config.json: bad_words_ids of several tokens")
    return tuple(word[0] for word in words)


def weight_name(ours: str) -> str:
    """Return the checkpoint's name of the network's parameter `ours`."""
    if ours in _TOP:
        return _TOP[ours]
    stack, layer, rest = ours.split(".", 2)
    part, _, kind = rest.rpartition(".")
    return f"model.{stack}.layers.{layer}.{_IN_LAYER[part]}.{kind}"
