"""Residual blocks of the transformer decoder: cross-attention, self-attention, feed-forward."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention with ``torch.nn.MultiheadAttention``'s parameters, batch first.

    Keys: ``in_proj_weight`` ``[3C, C]`` (q, k, v stacked), ``in_proj_bias`` ``[3C]``, ``out_proj``.
    """

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        if channels % num_heads:
            raise ValueError(f'hidden_dim {channels} is not divisible by nheads {num_heads}')
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor | None = None) -> Tensor:
        """Attention of ``query`` ``[B, N, C]`` to ``key`` and ``value`` ``[B, M, C]``.

        Args:
            attend: bool ``[B, N, M]``, True where a query may look; None for everywhere. Every row needs a True.

        Returns:
            ``[B, N, C]``.
        """
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        # [B, heads, N or M, C / heads]
        query, key, value = (F.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                             for x, w, b in zip((query, key, value), weights, biases, strict=True))
        mask = None if attend is None else attend[:, None]
        if query.is_cpu and query.dtype == torch.bfloat16 and query.requires_grad:
            # The CPU kernel's backward pass in bfloat16 takes two to three times as long as in float32.
            query, key, value = query.float(), key.float(), value.float()
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class CrossAttentionLayer(nn.Module):
    """``x + attention(x, memory)`` with layer norm after (post-norm, as published) or before (pre-norm)."""

    def __init__(self, channels: int, num_heads: int, pre_norm: bool):
        super().__init__()
        self.multihead_attn = MultiheadAttention(channels, num_heads)
        self.norm = nn.LayerNorm(channels)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, x_position: Tensor, memory: Tensor, memory_position: Tensor,
                attend: Tensor | None = None) -> Tensor:
        """``x`` ``[B, N, C]`` looks at ``memory`` ``[B, M, C]``; positions are added to queries and keys only."""
        query = self.norm(x) if self.pre_norm else x
        x = x + self.multihead_attn(query + x_position, memory + memory_position, memory, attend)
        return x if self.pre_norm else self.norm(x)


class SelfAttentionLayer(nn.Module):
    """``x + attention(x, x)`` with layer norm after or before."""

    def __init__(self, channels: int, num_heads: int, pre_norm: bool):
        super().__init__()
        self.self_attn = MultiheadAttention(channels, num_heads)
        self.norm = nn.LayerNorm(channels)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``x`` ``[B, N, C]`` looks at itself; ``position`` is added to queries and keys only."""
        value = self.norm(x) if self.pre_norm else x
        query = value + position
        x = x + self.self_attn(query, query, value)
        return x if self.pre_norm else self.norm(x)


class FeedForwardLayer(nn.Module):
    """``x + linear2(relu(linear1(x)))`` with layer norm after or before."""

    def __init__(self, channels: int, hidden_channels: int, pre_norm: bool):
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden_channels)
        self.linear2 = nn.Linear(hidden_channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.pre_norm = pre_norm
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x) if self.pre_norm else x
        x = x + self.linear2(F.relu_(self.linear1(hidden)))
        return x if self.pre_norm else self.norm(x)


class MLP(nn.Module):
    """Linear layers with ReLU between them. Keys: ``layers.{i}``."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int = 3):
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu_(layer(x))
        return self.layers[-1](x)
