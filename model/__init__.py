"""Encoder-decoder models: `load` one, run it with its `Runner`, speak through its `Tokenizer`.

These are the package's public names; everything else may change.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from model.backends import cpu
from model.building import (
    build,
    default_precision,
    generation_defaults,
    model_config,
    outline,
)
from model.captured.settings import CaptureSettings
from model.checkpoint import Checkpoint, CheckpointError
from model.config import ModelConfig, Precision, UnsupportedModel
from model.decoding.options import DecodingOptions
from model.decoding.search import Hypothesis
from model.decoding.step import Step
from model.detokenizer import Detokenizer
from model.hub import HubError, Reference, resolve
from model.native import network as native_network
from model.runner import Arrival, Network, Pending, Runner
from model.tokenizer import open_tokenizer
from model.tokenizers.contract import (
    OutsideVocabulary,
    Prompt,
    Tokenizer,
    UnknownDirection,
)

__all__ = [
    "BUNDLED",
    "Arrival",
    "CaptureSettings",
    "Card",
    "CheckpointError",
    "DecodingOptions",
    "Detokenizer",
    "HubError",
    "Hypothesis",
    "Model",
    "OutsideVocabulary",
    "Pending",
    "Precision",
    "Prompt",
    "Reference",
    "Runner",
    "Step",
    "Tokenizer",
    "UnknownDirection",
    "UnsupportedModel",
    "describe",
    "load",
    "resolve",
]

logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "bundled" / "en-de"

Asked = Precision | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Card:
    """What a model can do, derived from its files.

    Attributes:
        precision: of weights and activations while it runs.
        max_target: tokens of a target at most, its prefix included.
        defaults: the decoding fields that generation_config.json sets, as `GenerationDefaults`
            names them, and forced_bos_token_id and forced_eos_token_id.
        targets: {source language: target languages}, the codes that clients use.
        aliases: {other spelling of a language, in lower case: its code}.
        source: the folder, or the repository of the hub, that it was loaded from.
        revision: the repository's commit; None for a folder.
    """

    name: str
    architecture: str
    precision: str
    parameters: int
    vocabulary: int
    decoder_layers: int
    max_source: int
    max_target: int
    defaults: dict[str, Any]
    targets: dict[str, tuple[str, ...]]
    aliases: dict[str, str]
    source: str
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
    precision: Asked = "auto",
    slots: int = 64,
    latent_bytes: int = 256 * 2**20,
    captured: bool | CaptureSettings | None = None,
) -> Model:
    """Load a checkpoint folder in Hugging Face's layout.

    Args:
        name: how clients call it; the folder's name by default.
        precision: of weights and activations; int8 is for CPUs and keeps norms and softmax in
            float32. auto takes what serves the family best on the device.
        slots: hypotheses decoded together at most.
        latent_bytes: bound of the latent cache.
        captured: whether, or how, decode steps are captured and replayed; by default on GPUs.

    Raises:
        CheckpointError: a file is missing, damaged or pickled.
        UnsupportedModel: the checkpoint needs something that is not served exactly, or there is
            no such device, or it cannot do the precision.
    """
    _verify_device(device)
    checkpoint = Checkpoint(folder)
    config = model_config(checkpoint)
    tokenizer = _tokenizer(checkpoint, config)
    card = _card(checkpoint, config, tokenizer, _precision(device, precision, config))
    network, parameters = _network(checkpoint, device, card.precision)
    runner = Runner(
        network,
        rows=slots,
        max_target=card.max_target,
        latent_bytes=latent_bytes,
        captured=captured,
    )
    card = replace(card, name=name or card.name, parameters=parameters)
    return Model(runner, tokenizer, card)


def describe(folder: Path, *, device: str = "cpu", precision: Asked = "auto") -> Card:
    """Return what a checkpoint folder can do without reading its weights; arguments as for `load`.

    Raises:
        CheckpointError, UnsupportedModel: as `load` does, for whatever is not in the weights.
    """
    checkpoint = Checkpoint(folder)
    config = model_config(checkpoint)
    chosen = _precision(device, precision, config)
    return _card(checkpoint, config, _tokenizer(checkpoint, config), chosen)


def _tokenizer(checkpoint: Checkpoint, config: ModelConfig) -> Tokenizer:
    return open_tokenizer(
        checkpoint,
        architecture=str(checkpoint.config["model_type"]),
        vocabulary=config.source_vocabulary,
        eos=config.eos,
    )


def _card(
    checkpoint: Checkpoint, config: ModelConfig, tokenizer: Tokenizer, precision: str
) -> Card:
    network = outline(config)
    return Card(
        name=checkpoint.folder.resolve().name,
        architecture=str(checkpoint.config["model_type"]),
        precision=precision,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        vocabulary=config.vocabulary,
        decoder_layers=config.decoder_layers,
        max_source=config.max_positions,
        max_target=config.max_target - 1,
        defaults=_defaults(checkpoint, config),
        targets=dict(tokenizer.targets),
        aliases=dict(tokenizer.aliases),
        source=str(checkpoint.folder),
    )


def _network(checkpoint: Checkpoint, device: str, precision: str) -> tuple[Network, int]:
    """Return the network in its precision, and how many parameters it has."""
    is_int8 = precision == "int8"
    dtype = torch.float32 if is_int8 else getattr(torch, precision)
    network = build(checkpoint, device=device, dtype=dtype)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if not is_int8:
        return network, parameters
    if not native_network.runs(network.config):
        logger.warning(
            "int8 by PyTorch's operators, several times slower than the compiled ones, which need "
            "x86 with AVX-512 VNNI, Linux, and a C++ compiler when Stele is installed"
        )
        cpu.quantise(network)
        return network, parameters
    packed = native_network.NativeNetwork(network, torch.get_num_threads())
    del network
    cpu.return_freed_memory()
    return packed, parameters


def _verify_device(device: str) -> None:
    wanted, found = torch.device(device), torch.cuda.device_count()
    if wanted.type == "cuda" and (wanted.index or 0) >= found:
        raise UnsupportedModel(
            f"device {device} is not there: this build of PyTorch sees {found} GPUs; choose cpu"
        )


def _precision(device: str, asked: Asked, config: ModelConfig) -> Precision:
    """Return the precision to use; raises UnsupportedModel where the device lacks it."""
    precision = default_precision(device, config) if asked == "auto" else asked
    if precision != "int8":
        return precision
    if torch.device(device).type != "cpu":
        raise UnsupportedModel(f"precision int8 runs on CPUs only: choose another for {device}")
    if not cpu.activation_steps():
        raise UnsupportedModel(
            "precision int8: this CPU, or this build of PyTorch, lacks it; choose float32"
        )
    if cpu.activation_steps() < 127:
        logger.warning("this CPU lacks AVX-512 VNNI: int8 rounds activations to seven bits")
    return precision


def _defaults(checkpoint: Checkpoint, config: ModelConfig) -> dict[str, Any]:
    forced = {
        "forced_bos_token_id": config.forced_bos,
        "forced_eos_token_id": config.forced_eos,
    }
    given = generation_defaults(checkpoint).given()
    return given | {name: token for name, token in forced.items() if token is not None}
