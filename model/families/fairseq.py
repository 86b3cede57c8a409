"""What Marian, M2M100, BART, mBART and Pegasus share: fairseq's names, as transformers has them."""

from collections.abc import Mapping
from typing import Any

from model.config import Activation, ModelConfig, UnsupportedModel
from model.generation_config import special_tokens

# Other spellings of the tables, M2M100's sinusoids under the name they once had, and what fairseq
# left in BART's files.
DERIVED = (
    "shared.weight",
    "embed_tokens.weight",
    "embed_positions.weights",
    "encoder.version",
    "decoder.version",
)

_ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "swish": "silu",
    "silu": "silu",
}
_SHARED = "model.shared.weight"
_SOURCE = "model.encoder.embed_tokens.weight"
_TARGET = "model.decoder.embed_tokens.weight"
_OUTPUT = "lm_head.weight"
_TOP = {
    "logits_bias": "final_logits_bias",
    "encoder_embedding_norm": "model.encoder.layernorm_embedding",
    "decoder_embedding_norm": "model.decoder.layernorm_embedding",
    "encoder_norm": "model.encoder.layer_norm",
    "decoder_norm": "model.decoder.layer_norm",
    "encoder_positions": "model.encoder.embed_positions",
    "decoder_positions": "model.decoder.embed_positions",
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


def config(
    published: Mapping[str, Any],
    generation: Mapping[str, Any],
    *,
    must_be: Mapping[str, Any],
    **choices: Any,
) -> ModelConfig:
    """Map a config.json and a generation_config.json of one of these families.

    Args:
        must_be: fields of older configs that today's code no longer reads, with the only value it
            computes; a field may be missing.
        choices: what the family fixes.

    Raises:
        UnsupportedModel: a field asks for something else.
    """
    for key, only in must_be.items():
        if published.get(key) not in (only, None):
            raise UnsupportedModel(f"{key} {published[key]!r} is not supported")
    activation = published["activation_function"]
    if activation not in _ACTIVATIONS:
        raise UnsupportedModel(f"activation {activation!r} is not supported")
    tokens = special_tokens(published, generation)
    width, positions = published["d_model"], published["max_position_embeddings"]
    shared = {
        "vocabulary": published["vocab_size"],
        "width": width,
        "encoder_layers": published["encoder_layers"],
        "decoder_layers": published["decoder_layers"],
        "encoder_heads": published["encoder_attention_heads"],
        "decoder_heads": published["decoder_attention_heads"],
        "encoder_hidden": published["encoder_ffn_dim"],
        "decoder_hidden": published["decoder_ffn_dim"],
        "activation": _ACTIVATIONS[activation],
        "embedding_scale": width**0.5 if published["scale_embedding"] else 1.0,
        "max_positions": positions,
        "max_target": positions,
        "ties_output": published.get("tie_word_embeddings") is not False,
        "start": tokens.start,
        "eos": tokens.eos,
        "pad": published["pad_token_id"],
        "suppressed": tokens.suppressed,
        "forced_bos": tokens.forced_bos,
        "forced_eos": tokens.forced_eos,
    }
    return ModelConfig(**shared | choices)


def weight_names(ours: str, config: ModelConfig) -> tuple[str, ...]:
    """Return the names of the network's parameter `ours`, the first that a file holds counts.

    Files of the bare network (`BartModel`, as of facebook/bart-large) leave out `model.`.
    """
    names = _full_names(ours, config)
    bare = [name.removeprefix("model.") for name in names]
    return (*names, *(name for name in bare if name not in names))


def _full_names(ours: str, config: ModelConfig) -> tuple[str, ...]:
    tied = (_OUTPUT,) if config.ties_output else ()
    if ours == "source_embedding.weight":
        return (_SOURCE, _SHARED, _TARGET, *tied) if config.shares_embedding else (_SOURCE,)
    if ours == "embedding.weight":
        return (_TARGET, _SHARED, _SOURCE, *tied) if config.shares_embedding else (_TARGET, *tied)
    if ours == "output.weight" and not config.ties_output:
        return (_OUTPUT,)
    if ours == "output.weight":
        tables = (_SHARED, _TARGET, _SOURCE) if config.shares_embedding else (_TARGET,)
        return (_OUTPUT, *tables)
    module, _, kind = ours.rpartition(".")
    if ours == "logits_bias":
        return (_TOP[ours],)
    if module in _TOP:
        return (f"{_TOP[module]}.{kind}",)
    stack, layer, part = module.split(".", 2)
    return (f"model.{stack}.layers.{layer}.{_IN_LAYER[part]}.{kind}",)
