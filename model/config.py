"""One description of an encoder-decoder Transformer that every family maps onto."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "gelu", "gelu_new", "silu"]  # gelu_new approximates gelu by tanh
NormPlacement = Literal["pre", "post"]
NormKind = Literal["layer", "rms"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]
Positions = Literal["sinusoidal", "tensor2tensor", "learned", "relative"]


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
_MOST_LAYERS = 1024  # a damaged file must not build for ever


class UnsupportedModel(ValueError):
    """The checkpoint asks for something this code cannot do exactly; says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shapes and choices of one model; what is not expressible here is refused at load.

    Attributes:
        vocabulary: tokens of the target; the source's differ only where `own_source_vocabulary`
            says so.
        encoder_hidden, decoder_hidden: widths of the feed-forward layers.
        activation: of the feed-forward layers; `is_gated` multiplies it by a second projection.
        has_final_norm: a norm after the last layer of each stack.
        has_embedding_norm: a norm after the embeddings of each stack.
        has_linear_bias: in the projections of attention and feed-forward layers.
        has_logits_bias: added to the logits.
        is_attention_scaled: whether scores are divided by the root of the head's width.
        own_head_width: of one attention head, where it is not `width / heads`.
        shares_embedding: source and target tokens are embedded by one table.
        ties_output: the target's table is also the projection to logits.
        output_scale: multiplies the decoder's last output before that projection.
        position_offset: of a table's rows; tensor2tensor's padding row is the one before it.
        relative_buckets, relative_limit: of relative positions, as `positions.buckets` has them.
        max_positions: tokens of a source.
        max_target: tokens of a target, the start token included.
        start: the decoder's first input token.
        suppressed: tokens that are never generated.
        forced_bos, forced_eos: the first token after the start, and the last of a target that
            reaches its maximal length; None leaves it to the model.
        is_float16_safe: whether activations stay in float16's range.
        keeps_down_float32: in float16, the feed-forward layers' second projection and the
            residual stream stay in float32.
    """

    vocabulary: int
    width: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_hidden: int
    decoder_hidden: int
    activation: Activation
    norm: NormPlacement
    max_positions: int
    max_target: int
    start: int
    eos: int
    pad: int
    own_source_vocabulary: int | None = None
    own_head_width: int | None = None
    shares_embedding: bool = True
    ties_output: bool = True
    is_gated: bool = False
    norm_kind: NormKind = "layer"
    norm_epsilon: float = 1e-5
    has_final_norm: bool = False
    has_embedding_norm: bool = False
    has_linear_bias: bool = True
    has_logits_bias: bool = False
    is_attention_scaled: bool = True
    embedding_scale: float = 1.0
    output_scale: float = 1.0
    positions: Positions = "sinusoidal"
    position_offset: int = 0
    relative_buckets: int = 0
    relative_limit: int = 0
    suppressed: tuple[int, ...] = ()
    forced_bos: int | None = None
    forced_eos: int | None = None
    is_float16_safe: bool = True
    keeps_down_float32: bool = False

    def __post_init__(self) -> None:
        """Refuse values of the wrong kind and shapes that do not fit together."""
        own = [
            n for n in ("own_source_vocabulary", "own_head_width") if getattr(self, n) is not None
        ]
        for name in (*_SIZES, *own):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UnsupportedModel(f"{name} is {size!r}, not a positive integer")
        for layers in (self.encoder_layers, self.decoder_layers):
            if layers > _MOST_LAYERS:
                raise UnsupportedModel(f"{layers} layers are more than {_MOST_LAYERS}")
        for heads in (self.encoder_heads, self.decoder_heads):
            if self.own_head_width is None and self.width % heads:
                raise UnsupportedModel(f"width {self.width} is not a multiple of {heads} heads")
        if self.shares_embedding and self.source_vocabulary != self.vocabulary:
            raise UnsupportedModel(
                f"one embedding for a source vocabulary of {self.source_vocabulary} "
                f"and a target vocabulary of {self.vocabulary}"
            )
        self._verify_tokens()
        self._verify_positions()

    def _verify_tokens(self) -> None:
        forced = [token for token in (self.forced_bos, self.forced_eos) if token is not None]
        for token in (self.start, self.eos, self.pad, *self.suppressed, *forced):
            if not isinstance(token, int) or isinstance(token, bool):
                raise UnsupportedModel(f"a token id is {token!r}, not one integer")
            if not 0 <= token < self.vocabulary:
                raise UnsupportedModel(
                    f"token id {token} is outside the vocabulary of {self.vocabulary}"
                )

    def _verify_positions(self) -> None:
        buckets, limit = self.relative_buckets, self.relative_limit
        if self.positions == "relative" and not 4 <= buckets < 2 * limit:
            raise UnsupportedModel(
                f"{buckets!r} buckets of relative positions for distances up to {limit!r}"
            )
        if self.positions == "tensor2tensor" and self.width < 4:
            raise UnsupportedModel(f"width {self.width} is too narrow for its positions")

    @property
    def source_vocabulary(self) -> int:
        """Tokens of the source."""
        return self.own_source_vocabulary or self.vocabulary

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the decoder."""
        return self.own_head_width or self.width // self.decoder_heads

    @property
    def encoder_head_dim(self) -> int:
        """Width of one attention head of the encoder."""
        return self.own_head_width or self.width // self.encoder_heads
