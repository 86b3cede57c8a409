"""M2M100 and the dense NLLB-200: pre-norm, tensor2tensor's positions, one shared embedding."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.families import fairseq
from model.families.fairseq import DERIVED, weight_names

__all__ = ["DERIVED", "config", "weight_names"]

_DEFAULTS = {"activation_function": "relu", "scale_embedding": True, "pad_token_id": 1}


def config(published: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """Map a config.json and generation_config.json of an M2M100ForConditionalGeneration."""
    completed = {**_DEFAULTS, **published}
    return fairseq.config(
        completed,
        generation,
        must_be={"normalize_before": True, "add_final_layer_norm": True},
        norm="pre",
        has_final_norm=True,
        positions="tensor2tensor",
        position_offset=completed["pad_token_id"] + 1,
    )
