"""Encoder-decoder models: `load` one, run it with its `Runner`, speak through its `Tokenizer`.

These are the package's public names; everything else may change.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from model.checkpoint import Checkpoint, CheckpointError
from model.config import ModelConfig, UnsupportedModel
from model.decoding.options import DecodingOptions
from model.families import marian
from model.hub import HubError, Reference, resolve
from model.runner import Arrival, Pending, Runner, StepResult
from model.tokenizer import Detokenizer, Tokenizer
from model.transformer import EncoderDecoder

__all__ = [
    "BUNDLED",
    "Arrival",
    "Card",
    "CheckpointError",
    "DecodingOptions",
    "Detokenizer",
    "HubError",
    "Model",
    "Pending",
    "Precision",
    "Reference",
    "Runner",
    "StepResult",
    "Tokenizer",
    "UnsupportedModel",
    "describe",
    "load",
    "resolve",
]

BUNDLED = Path(__file__).parent / "bundled" / "en-de"

Precision = Literal["float32", "bfloat16", "float16", "int8"]


@dataclass(frozen=True, slots=True)
class Card:
    """What a model can do, derived from its files.

    Attributes:
        defaults: the decoding fields that generation_config.json sets.
        targets: {source language: target languages}, ISO 639 codes.
        has_target_token: whether the target is chosen by a first source token.
        precision: of weights and activations while it runs.
        source: the folder, or the repository of the hub, that it was loaded from.
        revision: the repository's commit; None for a folder.
    """

    name: str
    architecture: str
    parameters: int
    max_source: int
    max_target: int
    defaults: dict[str, Any]
    targets: dict[str, tuple[str, ...]]
    has_target_token: bool
    precision: str = "float32"
    source: str = ""
    revision: str | None = None

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
    precision: Precision = "float32",
    slots: int = 64,
    latent_bytes: int = 256 * 2**20,
) -> Model:
    """Load a checkpoint folder in Hugging Face's layout.

    Args:
        name: how clients call it; the folder's name by default.
        slots: targets decoded together at most.
        latent_bytes: bound of the latent cache.

    Raises:
        CheckpointError: a file is missing, damaged or pickled.
        UnsupportedModel: the checkpoint needs something that is not served exactly.
    """
    if precision == "int8":
        raise UnsupportedModel("precision int8 is not supported yet; use float32 or bfloat16")
    checkpoint = Checkpoint(folder)
    config = _config(checkpoint)
    network = _network(checkpoint, config).to(device, getattr(torch, precision))
    tokenizer = Tokenizer.open(checkpoint, vocabulary=config.vocabulary, eos=config.eos)
    runner = Runner(
        network, rows=slots, max_target=config.max_target - 1, latent_bytes=latent_bytes
    )
    card = _card(checkpoint, config, network, tokenizer)
    return Model(runner, tokenizer, replace(card, name=name or card.name, precision=precision))


def describe(folder: Path) -> Card:
    """Return what a checkpoint folder can do without reading its weights.

    Raises:
        CheckpointError, UnsupportedModel: as `load` does, for whatever is not in the weights.
    """
    checkpoint = Checkpoint(folder)
    config = _config(checkpoint)
    with torch.device("meta"):
        network = EncoderDecoder(config)
    tokenizer = Tokenizer.open(checkpoint, vocabulary=config.vocabulary, eos=config.eos)
    return _card(checkpoint, config, network, tokenizer)


def _card(
    checkpoint: Checkpoint, config: ModelConfig, network: EncoderDecoder, tokenizer: Tokenizer
) -> Card:
    return Card(
        name=checkpoint.folder.resolve().name,
        architecture=str(checkpoint.config.get("model_type")),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        max_source=config.max_positions,
        max_target=config.max_target - 1,
        defaults=_defaults(checkpoint.generation),
        targets=_targets(checkpoint, tokenizer),
        has_target_token=bool(tokenizer.target_codes),
        source=str(checkpoint.folder),
    )


def _config(checkpoint: Checkpoint) -> ModelConfig:
    files = f"{checkpoint.folder / 'config.json'} with generation_config.json"
    architecture = checkpoint.config.get("model_type")
    if architecture != "marian":
        path = checkpoint.folder / "config.json"
        raise UnsupportedModel(f"{path}: model_type {str(architecture)!r} is not supported")
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


def _targets(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, tuple[str, ...]]:
    published = checkpoint.read_json("tokenizer_config.json", default={})
    sources = [code for code in str(published.get("source_lang") or "").split("+") if code]
    targets = sorted(tokenizer.target_codes) or [str(published.get("target_lang") or "")]
    return {s: tuple(t for t in targets if t and t != s) for s in sources}
