"""From a checkpoint to its network: chooses the family, reads each tensor into its place."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.backends import cpu
from model.checkpoint import Checkpoint, CheckpointError, Wanted
from model.config import ModelConfig, Precision, UnsupportedModel
from model.families import bart, m2m100, marian, mbart, mt5, pegasus, t5
from model.generation_config import GenerationDefaults, defaults
from model.transformer import EncoderDecoder

logger = logging.getLogger(__name__)

_BIAS = "logits_bias"
_STACKS = ("encoder", "decoder")


class Family(Protocol):
    """What each module of `families` offers."""

    @property
    def DERIVED(self) -> tuple[str, ...]:
        """Parts of the names that may stand in a file unread."""

    def config(self, published: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
        """Map config.json and generation_config.json."""

    def weight_names(self, ours: str, config: ModelConfig) -> tuple[str, ...]:
        """Return the names that may hold a parameter, the best first."""


FAMILIES: dict[str, Family] = {  # by config.json's model_type
    "bart": bart,
    "m2m_100": m2m100,
    "marian": marian,
    "mbart": mbart,
    "mt5": mt5,
    "pegasus": pegasus,
    "t5": t5,
}


def family(checkpoint: Checkpoint) -> Family:
    """Return the family that config.json names.

    Raises:
        UnsupportedModel: it is none of ours.
    """
    name = str(checkpoint.config.get("model_type"))
    if name not in FAMILIES:
        raise UnsupportedModel(
            f"{checkpoint.folder / 'config.json'}: model_type {name!r} is not supported; "
            f"these are: {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def model_config(checkpoint: Checkpoint) -> ModelConfig:
    """Return what the checkpoint's files describe.

    Raises:
        CheckpointError: a field is missing or of the wrong kind.
        UnsupportedModel: a field asks for what is not done.
    """
    chosen = family(checkpoint)
    with _naming_files(checkpoint):
        return chosen.config(checkpoint.config, checkpoint.generation)


def generation_defaults(checkpoint: Checkpoint) -> GenerationDefaults:
    """Return how the checkpoint wants its targets decoded; raises as `model_config` does."""
    with _naming_files(checkpoint):
        return defaults(checkpoint.config, checkpoint.generation)


@contextmanager
def _naming_files(checkpoint: Checkpoint) -> Iterator[None]:
    files = f"{checkpoint.folder / 'config.json'} with generation_config.json"
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{files} lacks {error}") from error
    except TypeError as error:
        raise CheckpointError(f"{files} holds a value of the wrong kind: {error}") from error
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{files}: {error}") from error


def default_precision(device: str, config: ModelConfig) -> Precision:
    """Return the precision that serves a model well on a device, as measured in docs/models.md."""
    if torch.device(device).type != "cpu":
        return "float16" if config.is_float16_safe else "bfloat16"
    if not cpu.activation_steps():
        logger.warning("this CPU, or this build of PyTorch, cannot do int8: using float32")
        return "float32"
    return "int8"


def build(
    checkpoint: Checkpoint, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> EncoderDecoder:
    """Build the network with the checkpoint's weights, for inference.

    One tensor at a time is held in both the file's dtype and its own.

    Raises:
        CheckpointError: a tensor is missing, unknown, mis-shaped or not a number.
        UnsupportedModel: the checkpoint asks for what is not done.
    """
    chosen = family(checkpoint)
    config = _as_stored(checkpoint, chosen, model_config(checkpoint))
    network = outline(replace(config, shares_embedding=False, ties_output=False))
    names = _stored_names(checkpoint, chosen, config, network)
    wanted = {
        name: Wanted(_stored_shape(ours, network), _dtype(ours, config, dtype))
        for ours, name in names.items()
    }
    read = {
        name: nn.Parameter(tensor.to(device), requires_grad=False)
        for name, tensor in checkpoint.tensors(wanted)
    }
    weights: dict[str, Tensor] = {ours: read[name] for ours, name in names.items()}
    if config.has_logits_bias:
        bias = weights.get(_BIAS, torch.zeros(1, config.vocabulary, device=device, dtype=dtype))
        weights[_BIAS] = nn.Parameter(bias[0], requires_grad=False)
    network.load_state_dict(weights, assign=True)
    _tie(network, config)
    for positions in (network.encoder_positions, network.decoder_positions):
        if positions is not None:
            positions.to(dtype=dtype)  # computed ones have not been read
    return network.to(device).requires_grad_(False).eval()


class _Unfilled(TorchFunctionMode):
    """Leaves out what initialises parameters.

    On the meta device, random numbers would import PyTorch's compiler, which takes longer than all
    the rest of loading a small model.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or return the parameter as it is."""
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def outline(config: ModelConfig) -> EncoderDecoder:
    """Return the network without numbers: names and shapes on the meta device."""
    with torch.device("meta"), _Unfilled():
        return EncoderDecoder(config)


def verify_names(checkpoint: Checkpoint) -> None:
    """Raise as `build` does for a tensor that is missing or unknown; no tensor is read."""
    chosen = family(checkpoint)
    config = _as_stored(checkpoint, chosen, model_config(checkpoint))
    network = outline(replace(config, shares_embedding=False, ties_output=False))
    _stored_names(checkpoint, chosen, config, network)


def _as_stored(checkpoint: Checkpoint, chosen: Family, config: ModelConfig) -> ModelConfig:
    """Take sinusoids from a file that stores them, as the reference does: they may be rounded."""
    if config.positions != "sinusoidal":
        return config
    names = [chosen.weight_names(f"{stack}_positions.weight", config) for stack in _STACKS]
    is_stored = any(name in checkpoint.shards for options in names for name in options)
    return replace(config, positions="learned") if is_stored else config


def _stored_names(
    checkpoint: Checkpoint, chosen: Family, config: ModelConfig, network: EncoderDecoder
) -> dict[str, str]:
    """Return which stored tensor is each of our parameters; a bias of zeros may be left out."""
    options = {ours: chosen.weight_names(ours, config) for ours in network.state_dict()}
    stored = {
        ours: next((name for name in names if name in checkpoint.shards), names[0])
        for ours, names in options.items()
    }
    if _BIAS in stored and stored[_BIAS] not in checkpoint.shards:
        del stored[_BIAS]
    others = {name for names in options.values() for name in names}
    checkpoint.verify_names(set(stored.values()), (*chosen.DERIVED, *others))
    return stored


def _stored_shape(ours: str, network: EncoderDecoder) -> torch.Size:
    shape = network.state_dict()[ours].shape
    return torch.Size([1, *shape]) if ours == _BIAS else shape


def _dtype(ours: str, config: ModelConfig, dtype: torch.dtype) -> torch.dtype:
    is_kept = config.keeps_down_float32 and dtype == torch.float16
    return torch.float32 if is_kept and ".feed_forward.down." in ours else dtype


def _tie(network: EncoderDecoder, config: ModelConfig) -> None:
    """Let equal tables be one; different ones stay apart whatever the config says."""
    target = network.embedding.weight
    shares = _are_equal(network.source_embedding.weight, target)
    ties = _are_equal(network.output.weight, target)
    if shares:
        network.source_embedding = network.embedding
    if ties:
        network.output.weight = target
    network.config = replace(config, shares_embedding=shares, ties_output=ties)


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one, other)
