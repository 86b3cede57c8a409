"""Pegasus: pre-norm with a norm after each stack, sinusoidal positions."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.families import fairseq
from model.families.fairseq import DERIVED, weight_names

__all__ = ["DERIVED", "config", "weight_names"]

_DEFAULTS = {"activation_function": "gelu", "scale_embedding": False, "pad_token_id": 0}
_MUST_BE = {
    "normalize_before": True,
    "normalize_embedding": False,
    "add_final_layer_norm": True,
    "static_position_embeddings": True,
}


def config(published: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """Map a config.json and generation_config.json of a PegasusForConditionalGeneration."""
    return fairseq.config(
        {**_DEFAULTS, **published},
        generation,
        must_be=_MUST_BE,
        norm="pre",
        has_final_norm=True,
        has_logits_bias=True,
        is_float16_safe=False,  # as its documentation in transformers says
    )
