"""Encoder-decoder models: `load` one, run it with its `Runner`, speak through its `Tokenizer`.

These are the package's public names; everything else may change.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from model.backends import cpu
from model.checkpoint import Checkpoint, CheckpointError
from model.config import ModelConfig, UnsupportedModel
from model.decoding.options import DecodingOptions
from model.decoding.search import Hypothesis
from model.decoding.step import Step
from model.detokenizer import Detokenizer
from model.families import marian
from model.runner import Arrival, Pending, Runner
from model.tokenizer import open_tokenizer
from model.tokenizers.contract import OutsideVocabulary, Prompt, Tokenizer, UnknownDirection
from model.transformer import EncoderDecoder

__all__ = [
    "BUNDLED",
    "Arrival",
    "Card",
    "CheckpointError",
    "DecodingOptions",
    "Detokenizer",
    "Hypothesis",
    "Model",
    "OutsideVocabulary",
    "Pending",
    "Precision",
    "Prompt",
    "Runner",
    "Step",
    "Tokenizer",
    "UnknownDirection",
    "UnsupportedModel",
    "default_precision",
    "load",
]

logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "bundled" / "en-de"

Precision = Literal["float32", "bfloat16", "float16", "int8"]


@dataclass(frozen=True, slots=True)
class Card:
    """What a model can do, derived from its files.

    Attributes:
        defaults: the decoding fields that generation_config.json sets.
        targets: {source language: target languages}, ISO 639 codes.
    """

    name: str
    architecture: str
    parameters: int
    max_source: int
    max_target: int
    defaults: dict[str, Any]
    targets: Mapping[str, tuple[str, ...]]

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


def default_precision(device: str) -> Precision:
    """Return what `device` does best: int8 on a CPU that can, as measured in docs/models.md."""
    if torch.device(device).type != "cpu":
        return "bfloat16"
    if not cpu.activation_steps():
        logger.warning("this CPU, or this build of PyTorch, cannot do int8: using float32")
        return "float32"
    return "int8"


def load(
    folder: Path,
    *,
    name: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    slots: int = 64,
    latent_bytes: int = 256 * 2**20,
) -> Model:
    """Load a checkpoint folder in Hugging Face's layout.

    Args:
        name: how clients call it; the folder's name by default.
        precision: of weights and activations; int8 is for CPUs and keeps norms, attention and
            caches in float32.
        slots: targets decoded together at most.
        latent_bytes: bound of the latent cache.

    Raises:
        CheckpointError: a file is missing, damaged or pickled.
        UnsupportedModel: the checkpoint needs something that is not served exactly, or the device
            cannot do the precision.
    """
    _check_precision(device, precision)
    checkpoint = Checkpoint(folder)
    architecture = str(checkpoint.config.get("model_type"))
    if architecture != "marian":
        raise UnsupportedModel(
            f"{folder / 'config.json'}: model_type {architecture!r} is not supported"
        )
    config = _config(checkpoint)
    network = _network(checkpoint, config)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if precision == "int8":
        cpu.quantise(network)
    else:
        network.to(device, getattr(torch, precision))
    tokenizer = open_tokenizer(
        checkpoint, architecture=architecture, vocabulary=config.vocabulary, eos=config.eos
    )
    runner = Runner(
        network, rows=slots, max_target=config.max_target - 1, latent_bytes=latent_bytes
    )
    card = Card(
        name=name or folder.resolve().name,
        architecture=architecture,
        parameters=parameters,
        max_source=runner.max_source,
        max_target=runner.max_target,
        defaults=_defaults(checkpoint.generation),
        targets=tokenizer.targets,
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


def _config(checkpoint: Checkpoint) -> ModelConfig:
    files = f"{checkpoint.folder / 'config.json'} with generation_config.json"
    try:
        return marian.config(checkpoint.config, checkpoint.generation)
    except KeyError as error:
        raise CheckpointError(f"{files} lacks {error}") from error
    except TypeError as error:
        raise CheckpointError(f"{files} holds a value of the wrong kind: {error}") from error
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{files}: {error}") from error


def _network(checkpoint: Checkpoint, config: ModelConfig) -> EncoderDecoder:
    with torch.device("meta"):
        network = EncoderDecoder(config)
    names = {ours: marian.weight_name(ours) for ours in network.state_dict()}
    shapes = {names[ours]: tensor.shape for ours, tensor in network.state_dict().items()}
    shapes["final_logits_bias"] = torch.Size([1, config.vocabulary])
    tensors = checkpoint.tensors(shapes, marian.DERIVED)
    tensors["final_logits_bias"] = tensors["final_logits_bias"][0]
    weights = {ours: tensors[theirs].float() for ours, theirs in names.items()}
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(False)
    network.make_positions()
    return network


_DEFAULTED = (
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
)


def _defaults(generation: dict[str, Any]) -> dict[str, Any]:
    if generation.get("num_beams") not in (None, 1):
        raise UnsupportedModel(
            f"generation_config.json: num_beams {generation['num_beams']} is not supported yet; "
            "set it to 1"
        )
    return {key: generation[key] for key in _DEFAULTED if generation.get(key) is not None}
