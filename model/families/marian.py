"""Marian, the family of OPUS-MT: post-norm, sinusoidal positions, one or two vocabularies."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.families import fairseq
from model.families.fairseq import DERIVED, weight_names

__all__ = ["DERIVED", "config", "weight_names"]

_DEFAULTS = {"activation_function": "gelu", "scale_embedding": False}
_MUST_BE = {
    "normalize_before": False,
    "normalize_embedding": False,
    "add_final_layer_norm": False,
    "static_position_embeddings": True,
}


def config(published: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """Map a MarianMTModel's config.json and generation_config.json; refuses what is not Marian."""
    source, shares = published["vocab_size"], published.get("share_encoder_decoder_embeddings")
    target = published.get("decoder_vocab_size") or source
    return fairseq.config(
        {**_DEFAULTS, **published},
        generation,
        must_be=_MUST_BE,
        norm="post",
        vocabulary=target,
        own_source_vocabulary=source,
        shares_embedding=shares is not False,
        has_logits_bias=True,
    )
