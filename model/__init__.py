"""Encoder-decoder models: `load` one, run it with its `Runner`, speak through its `Tokenizer`.

These are the package's public names; everything else may change.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.backends import cpu
from model.building import build, default_precision, generation_defaults, model_config
from model.checkpoint import Checkpoint, CheckpointError
from model.config import Precision, UnsupportedModel
from model.decoding.options import DecodingOptions
from model.runner import Arrival, Pending, Runner, StepResult
from model.tokenizer import Detokenizer, Tokenizer

__all__ = [
    "BUNDLED",
    "Arrival",
    "Card",
    "CheckpointError",
    "DecodingOptions",
    "Detokenizer",
    "Model",
    "Pending",
    "Precision",
    "Runner",
    "StepResult",
    "Tokenizer",
    "UnsupportedModel",
    "default_precision",
    "load",
]

logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "bundled" / "en-de"


@dataclass(frozen=True, slots=True)
class Card:
    """What a model can do, derived from its files.

    Attributes:
        defaults: the decoding fields that generation_config.json sets, as `GenerationDefaults`
            names them.
        targets: {source language: target languages}, ISO 639 codes.
        has_target_token: whether the target is chosen by a first source token.
    """

    name: str
    architecture: str
    parameters: int
    max_source: int
    max_target: int
    defaults: dict[str, Any]
    targets: dict[str, tuple[str, ...]]
    has_target_token: bool

    @property
    def languages(self) -> list[str]:
        """Every language that is a source or a target."""
        return sorted({*self.targets, *(c for codes in self.targets.values() for c in codes)})


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded checkpoint, ready to run."""

    runner: Runner
    tokenizer: Tokenizer
    card: Card


def load(
    folder: Path,
    *,
    name: str | None = None,
    device: str = "cpu",
    precision: Precision | None = "float32",
    slots: int = 64,
    latent_bytes: int = 256 * 2**20,
) -> Model:
    """Load a checkpoint folder in Hugging Face's layout.

    Args:
        name: how clients call it; the folder's name by default.
        precision: of weights and activations, None for what suits device and model best; int8 is
            for CPUs and keeps norms, attention and caches in float32.
        slots: targets decoded together at most.
        latent_bytes: bound of the latent cache.

    Raises:
        CheckpointError: a file is missing, damaged or pickled.
        UnsupportedModel: the checkpoint needs something that is not served exactly, or the device
            cannot do the precision.
    """
    checkpoint = Checkpoint(folder)
    defaults = generation_defaults(checkpoint)
    precision = precision or default_precision(device, model_config(checkpoint))
    _check_precision(device, precision)
    dtype = torch.float32 if precision == "int8" else getattr(torch, precision)
    network = build(checkpoint, device=device, dtype=dtype)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    config = network.config
    if precision == "int8":
        cpu.quantise(network)
    tokenizer = Tokenizer.open(checkpoint, vocabulary=config.vocabulary, eos=config.eos)
    runner = Runner(
        network, rows=slots, max_target=config.max_target - 1, latent_bytes=latent_bytes
    )
    card = Card(
        name=name or folder.resolve().name,
        architecture=str(checkpoint.config["model_type"]),
        parameters=parameters,
        max_source=runner.max_source,
        max_target=runner.max_target,
        defaults=defaults.given(),
        targets=_targets(checkpoint, tokenizer),
        has_target_token=bool(tokenizer.target_codes),
    )
    return Model(runner, tokenizer, card)


def _check_precision(device: str, precision: Precision) -> None:
    if precision != "int8":
        return
    if torch.device(device).type != "cpu":
        raise UnsupportedModel(f"precision int8 runs on CPUs only: choose another for {device}")
    if not cpu.activation_steps():
        raise UnsupportedModel(
            "precision int8: this CPU, or this build of PyTorch, lacks it; choose float32"
        )
    if cpu.activation_steps() < 127:
        logger.warning("this CPU lacks AVX-512 VNNI: int8 rounds activations to seven bits")


def _targets(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, tuple[str, ...]]:
    published = checkpoint.read_json("tokenizer_config.json", default={})
    sources = [code for code in str(published.get("source_lang") or "").split("+") if code]
    targets = sorted(tokenizer.target_codes) or [str(published.get("target_lang") or "")]
    return {s: tuple(t for t in targets if t and t != s) for s in sources}
