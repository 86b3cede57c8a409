"""What both stacks of a Transformer are made of: attention, feed-forward layers and norms."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import Activation, ModelConfig

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "silu": F.silu,
}


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor,
    *,
    is_scaled: bool = True,
    attention: list[Tensor] | None = None,
) -> Tensor:
    """Mix `values` by how well each key matches each query.

    In matmul form on a CPU, where it is two to three times as fast as
    `scaled_dot_product_attention` for single queries, and wherever weights are wanted.

    Args:
        query: [batch, heads, queries, head_dim].
        keys, values: [batch, heads, keys, head_dim]; finite everywhere, unreadable columns too.
        bias: broadcastable to [batch, heads, queries, keys]; -inf where a key may not be read,
            at least one finite per query.
        is_scaled: whether scores are divided by the root of `head_dim`.
        attention: receives the weights [batch, heads, queries, keys].

    Returns:
        [batch, heads, queries, head_dim].

    Source: Vaswani et al. (2017), eq. 1, arXiv:1706.03762.
    """
    if attention is None and not query.is_cpu:
        return attend_fused(query, keys, values, bias, is_scaled=is_scaled)
    scores = query @ keys.transpose(-1, -2)
    if is_scaled:
        scores = scores * query.shape[-1] ** -0.5
    weights = (scores + bias).softmax(-1)
    if attention is not None:
        attention.append(weights)
    return torch.matmul(weights, values)


def attend_fused(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, *, is_scaled: bool
) -> Tensor:
    """Do as `attend` in one kernel, which keeps no scores of all queries and keys."""
    scale = None if is_scaled else 1.0
    return F.scaled_dot_product_attention(query, keys, values, bias, scale=scale)


class Attention(nn.Module):
    """Multi-head attention; projections that read the same may be joined once they are loaded."""

    def __init__(self, config: ModelConfig, heads: int, head_dim: int) -> None:
        super().__init__()
        self.joint: nn.Module | None = None  # query, key and value, or key and value
        self.heads, self._head_dim = heads, head_dim
        self._is_scaled = config.is_attention_scaled
        width, inner, bias = config.width, heads * head_dim, config.has_linear_bias
        self.query = nn.Linear(width, inner, bias)
        self.key = nn.Linear(width, inner, bias)
        self.value = nn.Linear(width, inner, bias)
        self.out = nn.Linear(inner, width, bias)

    def split(self, projected: Tensor) -> Tensor:
        """[batch, length, heads * head_dim] -> [batch, heads, length, head_dim], contiguous.

        A view would be multiplied by another kernel for one row than for several, and a row's bits
        would depend on its neighbours.
        """
        batch, length, _ = projected.shape
        by_head = projected.view(batch, length, self.heads, self._head_dim)
        return by_head.transpose(1, 2).contiguous()

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project [batch, length, width] to keys and values [batch, heads, length, head_dim]."""
        if self.joint is None:
            return self.split(self.key(memory)), self.split(self.value(memory))
        keys, values = self._split_joint(memory, 2)
        return keys, values

    def queries_keys_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project [batch, length, width] thrice to [batch, heads, length, head_dim]."""
        if self.joint is None:
            return self.split(self.query(hidden)), *self.keys_values(hidden)
        queries, keys, values = self._split_joint(hidden, 3)
        return queries, keys, values

    def _split_joint(self, hidden: Tensor, parts: int) -> tuple[Tensor, ...]:
        assert self.joint is not None
        batch, length, _ = hidden.shape
        projected: Tensor = self.joint(hidden)
        by_head = projected.view(batch, length, parts, self.heads, self._head_dim)
        return by_head.permute(2, 0, 3, 1, 4).contiguous().unbind(0)

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
        attention: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend from projected queries to projected keys and values.

        Args:
            query: [batch, heads, queries, head_dim]; of padding rows beyond those of `keys`,
                nothing is read and zeros are mixed.

        Returns:
            [batch, queries, width].
        """
        padding = len(query) - len(keys)
        mixed = attend(
            query[: len(keys)] if padding else query,
            keys,
            values,
            bias,
            is_scaled=self._is_scaled,
            attention=attention,
        )
        together = mixed.transpose(1, 2).flatten(2)
        merged: Tensor = self.out(
            F.pad(together, (0, 0, 0, 0, 0, padding)) if padding else together
        )
        return merged


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, which a third one may gate."""

    def __init__(self, config: ModelConfig, hidden: int) -> None:
        super().__init__()
        self.gate = (
            nn.Linear(config.width, hidden, config.has_linear_bias) if config.is_gated else None
        )
        self.up = nn.Linear(config.width, hidden, config.has_linear_bias)
        self.down = nn.Linear(hidden, config.width, config.has_linear_bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., width]; float32 where `down` is kept so."""
        if self.gate is None:
            raised = self.activation(self.up(hidden))
        else:
            raised = self.activation(self.gate(hidden)) * self.up(hidden)
        if isinstance(self.down, nn.Linear):
            raised = raised.to(self.down.weight.dtype)
        lowered: Tensor = self.down(raised)
        return lowered


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, which is float32 in every precision.

    Source: Zhang and Sennrich (2019), eq. 4, arXiv:1910.07467, with the casts of `T5LayerNorm` of
    transformers.
    """

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> the same, in the dtype of the weight."""
        variance = hidden.float().pow(2).mean(-1, keepdim=True)
        normed = hidden * torch.rsqrt(variance + self._epsilon)
        return self.weight * normed.to(self.weight.dtype)


def norm(config: ModelConfig) -> nn.Module:
    """Return a norm of the kind that `config` asks for."""
    if config.norm_kind == "rms":
        return RMSNorm(config.width, config.norm_epsilon)
    return nn.LayerNorm(config.width, config.norm_epsilon)


class Branch(nn.Module):
    """Where the norm of a residual branch stands: before the branch or after the sum."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = norm(config)
        self._pre = config.norm == "pre"

    def enter(self, hidden: Tensor) -> Tensor:
        """Return what the branch reads."""
        return self.norm(hidden) if self._pre else hidden

    def leave(self, hidden: Tensor, update: Tensor) -> Tensor:
        """Return the residual stream after the branch."""
        return hidden + update if self._pre else self.norm(hidden + update)
