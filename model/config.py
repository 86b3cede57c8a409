"""One description of an encoder-decoder Transformer that every family maps onto."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "gelu", "silu"]
NormPlacement = Literal["pre", "post"]


_SIZES = (
    "vocabulary",
    "width",
    "encoder_layers",
    "decoder_layers",
    "encoder_heads",
    "decoder_heads",
    "encoder_hidden",
    "decoder_hidden",
    "max_positions",
    "max_target",
)


class UnsupportedModel(ValueError):
    """The checkpoint asks for something this code cannot do exactly; says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shapes and choices of one model; what is not expressible here is refused at load."""

    vocabulary: int
    width: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_hidden: int  # width of the feed-forward layer
    decoder_hidden: int
    activation: Activation
    norm: NormPlacement
    final_norm: bool  # a norm after the last layer of each stack
    embedding_scale: float
    max_positions: int
    max_target: int  # tokens of a target, the start token included
    start: int  # the decoder's first input token
    eos: int
    pad: int
    suppressed: tuple[int, ...] = ()  # tokens that are never generated
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse values of the wrong kind and shapes that do not fit together."""
        for name in _SIZES:
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UnsupportedModel(f"{name} is {size!r}, not a positive integer")
        for heads in (self.encoder_heads, self.decoder_heads):
            if self.width % heads:
                raise UnsupportedModel(f"width {self.width} is not a multiple of {heads} heads")
        for token in (self.start, self.eos, self.pad, *self.suppressed):
            if not isinstance(token, int):
                raise UnsupportedModel(f"a token id is {token!r}, not one integer")
            if not 0 <= token < self.vocabulary:
                raise UnsupportedModel(
                    f"token id {token} is outside the vocabulary of {self.vocabulary}"
                )

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the decoder."""
        return self.width // self.decoder_heads
