"""The network under training: transformers' Marian, shaped and initialised for a small machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel


def build(
    vocabulary_size: int, width: int, encoder_layers: int, decoder_layers: int
) -> MarianMTModel:
    """Make a randomly initialised post-norm Marian model; `<pad>` is the last token.

    Branch outputs start small (standard deviation over the square root of the number of branches),
    so that a post-norm stack begins close to the identity and bears a high learning rate.
    """
    pad = vocabulary_size - 1
    config = _shape(vocabulary_size, width, encoder_layers, decoder_layers)
    model = MarianMTModel(config)
    branches = 2 * encoder_layers + 3 * decoder_layers
    for name, parameter in model.named_parameters():
        if parameter.dim() != 2 or "embed_positions" in name:
            continue
        if "shared" in name:
            nn.init.normal_(parameter, std=width**-0.5)
            with torch.no_grad():
                parameter[pad].zero_()
        else:
            nn.init.xavier_uniform_(parameter)
            if name.endswith(("out_proj.weight", "fc2.weight")):
                with torch.no_grad():
                    parameter.mul_((branches / 2) ** -0.5)
    del model.final_logits_bias
    model.final_logits_bias = nn.Parameter(torch.zeros(1, vocabulary_size))
    return model


def _shape(
    vocabulary_size: int, width: int, encoder_layers: int, decoder_layers: int
) -> MarianConfig:
    """Return a configuration with heads of 64, which decodes as OPUS-MT's checkpoints do."""
    pad = vocabulary_size - 1
    return MarianConfig(
        vocab_size=vocabulary_size,
        decoder_vocab_size=vocabulary_size,
        d_model=width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        max_position_embeddings=512,
        activation_function="relu",
        dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        eos_token_id=0,
        forced_eos_token_id=None,
        pad_token_id=pad,
        bos_token_id=None,
        decoder_start_token_id=pad,
        attn_implementation="eager",
    )


def token_loss(model: MarianMTModel, source: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Return the summed label-smoothed cross entropy of `target` [batch, length], padded with pad.

    The pad token is left out of the softmax, as decoding leaves it out (`bad_words_ids`).
    """
    pad = model.config.pad_token_id
    previous = F.pad(target[:, :-1], (1, 0), value=pad)
    hidden = model.model(
        input_ids=source,
        attention_mask=source.ne(pad),
        decoder_input_ids=previous,
        use_cache=False,
    )[0]
    logits = F.linear(hidden, model.model.shared.weight[:pad])
    logits = logits + model.final_logits_bias[0, :pad].to(logits.dtype)
    return F.cross_entropy(
        logits.float().view(-1, pad),
        target.masked_fill(target.eq(pad), -100).view(-1),
        ignore_index=-100,
        label_smoothing=smoothing,
        reduction="sum",
    )


class Average:
    """Exponential moving average of a model's parameters, on its device."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = [parameter.detach().clone() for parameter in model.parameters()]

    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the parameters; the first steps count more, as nothing is averaged yet."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in model.parameters()], weight)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Lend the averaged parameters to `model` for the length of a `with` block."""
        own = [parameter.detach().clone() for parameter in model.parameters()]
        self._copy_to(model, self.values)
        try:
            yield
        finally:
            self._copy_to(model, own)

    @staticmethod
    def _copy_to(model: nn.Module, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), values, strict=True):
                parameter.copy_(value)
