"""T5 1.0 and 1.1, Flan-T5, MADLAD-400 and ByT5: RMS norms, no biases, relative positions."""

from collections.abc import Mapping
from typing import Any

from model.config import Activation, ModelConfig, UnsupportedModel
from model.generation_config import special_tokens

DERIVED = ("EncDecAttention.relative_attention_bias",)  # of no effect: it never had one

_DEFAULTS = {
    "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "pad_token_id": 0,
    "n_positions": 1024,  # mT5 and ByT5 were trained on as many and do not say so
}
_ACTIVATIONS: dict[str, tuple[Activation, bool]] = {  # whether it is gated
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gelu_new": ("gelu_new", False),
    "silu": ("silu", False),
    "swish": ("silu", False),
    "gated-relu": ("relu", True),
    "gated-gelu": ("gelu_new", True),  # so has transformers decided
    "gated-gelu_new": ("gelu_new", True),
    "gated-silu": ("silu", True),
    "gated-swish": ("silu", True),
}
_SHARED = "shared.weight"
_SOURCE = "encoder.embed_tokens.weight"
_TARGET = "decoder.embed_tokens.weight"
_OUTPUT = "lm_head.weight"
_TABLES = {  # transformers ties all of them, unless the file holds different ones
    "source_embedding.weight": (_SOURCE, _SHARED, _TARGET, _OUTPUT),
    "embedding.weight": (_TARGET, _SHARED, _SOURCE, _OUTPUT),
    "output.weight": (_OUTPUT, _SHARED, _SOURCE, _TARGET),
}
_PARTS = {"query": "q", "key": "k", "value": "v", "out": "o"}
_GATED = {"gate": "wi_0", "up": "wi_1", "down": "wo"}
_PLAIN = {"up": "wi", "down": "wo"}


def config(published: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """Map a config.json and generation_config.json of a T5ForConditionalGeneration."""
    completed = {**_DEFAULTS, **published}
    projection, width = completed["feed_forward_proj"], completed["d_model"]
    if projection not in _ACTIVATIONS:
        raise UnsupportedModel(f"feed_forward_proj {projection!r} is not supported")
    activation, is_gated = _ACTIVATIONS[projection]
    tokens = special_tokens(published, generation)
    layers = completed["num_layers"]
    decoder_layers = completed.get("num_decoder_layers")
    return ModelConfig(
        vocabulary=completed["vocab_size"],
        width=width,
        own_head_width=completed["d_kv"],
        encoder_layers=layers,
        decoder_layers=layers if decoder_layers is None else decoder_layers,
        encoder_heads=completed["num_heads"],
        decoder_heads=completed["num_heads"],
        encoder_hidden=completed["d_ff"],
        decoder_hidden=completed["d_ff"],
        activation=activation,
        is_gated=is_gated,
        norm="pre",
        norm_kind="rms",
        norm_epsilon=completed["layer_norm_epsilon"],
        has_final_norm=True,
        has_linear_bias=False,
        is_attention_scaled=False,
        positions="relative",
        relative_buckets=completed["relative_attention_num_buckets"],
        relative_limit=completed["relative_attention_max_distance"],
        output_scale=width**-0.5 if _scales_output(published) else 1.0,
        max_positions=completed["n_positions"],
        max_target=completed["n_positions"],
        start=tokens.start,
        eos=tokens.eos,
        pad=completed["pad_token_id"],
        suppressed=tokens.suppressed,
        forced_bos=tokens.forced_bos,
        forced_eos=tokens.forced_eos,
        is_float16_safe=False,
        keeps_down_float32=True,
    )


def _scales_output(published: Mapping[str, Any]) -> bool:
    """Whether this is version 1.0: its configs tie the output, or say so in transformers 5."""
    is_tied = published.get("tie_word_embeddings") is not False
    return bool(published.get("scale_decoder_outputs", is_tied))


def weight_names(ours: str, config: ModelConfig) -> tuple[str, ...]:
    """Return the names of the network's parameter `ours`, the first that a file holds counts."""
    if ours in _TABLES:
        return _TABLES[ours]
    stack, _, rest = ours.partition(".")
    if stack.endswith("_relative"):
        stack = stack.removesuffix("_relative")
        return (f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",)
    if stack.endswith("_norm"):
        return (f"{stack.removesuffix('_norm')}.final_layer_norm.weight",)
    layer, part, *inner = rest.split(".")
    branch = part.removesuffix("_branch")
    index = {"attention": 0, "cross": 1, "feed_forward": 1 + (stack == "decoder")}[branch]
    block = f"{stack}.block.{layer}.layer.{index}"
    if part != branch:
        return (f"{block}.layer_norm.weight",)
    if part == "feed_forward":
        names = _GATED if config.is_gated else _PLAIN
        return (f"{block}.DenseReluDense.{names[inner[0]]}.weight",)
    kind = "SelfAttention" if part == "attention" else "EncDecAttention"
    return (f"{block}.{kind}.{_PARTS[inner[0]]}.weight",)
