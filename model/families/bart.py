"""BART: post-norm, learned positions after two unused rows, a norm of the embeddings."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.families import fairseq
from model.families.fairseq import DERIVED, weight_names

__all__ = ["DERIVED", "config", "weight_names"]

_DEFAULTS = {"activation_function": "gelu", "scale_embedding": False, "pad_token_id": 1}
_MUST_BE = {
    "normalize_before": False,
    "normalize_embedding": True,
    "add_final_layer_norm": False,
    "static_position_embeddings": False,
    "extra_pos_embeddings": 2,
}


def config(published: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """Map a config.json and generation_config.json of a BartForConditionalGeneration."""
    return fairseq.config(
        {**_DEFAULTS, **published},
        generation,
        must_be=_MUST_BE,
        norm="post",
        has_embedding_norm=True,
        positions="learned",
        position_offset=2,
        has_logits_bias=True,
    )
