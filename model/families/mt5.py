"""mT5: T5 1.1 by its weights; its output is never scaled."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from model.config import ModelConfig
from model.families import t5
from model.families.t5 import DERIVED, weight_names

__all__ = ["DERIVED", "config", "weight_names"]

_DEFAULTS = {"feed_forward_proj": "gated-gelu"}


def config(published: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """Map a config.json and generation_config.json of an MT5ForConditionalGeneration."""
    return replace(t5.config({**_DEFAULTS, **published}, generation), output_scale=1.0)
