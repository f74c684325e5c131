"""Swin Transformer backbones (Liu et al., ICCV 2021, arXiv 2103.14030): torchvision's, with Mask2Former's attention.

Names of the state dict are those of the Swin authors' and of Mask2Former's files.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ('res2', 'res3', 'res4', 'res5')
PATCH = 4


class WindowAttention(nn.Module):
    """Self-attention inside windows, every second time inside windows shifted by half a window.

    What torchvision's blocks take as their ``attn_layer``. It computes what torchvision's own does, in fewer passes,
    but for one point: maps that fit in one window are not shifted by torchvision (nor by the Swin authors' classifier).
    Mask2Former's authors shift them too, so this does (``D2SwinTransformer`` in their repository).

    Keys: ``qkv``, ``proj``, ``relative_position_bias_table``, and the constant ``relative_position_index``.

    Args:
        dim: channels.
        window_size, shift_size: in pixels of the map, (height, width).
        num_heads: attention heads.
        attention_dropout, dropout: given by torchvision's blocks, always 0 here.
    """

    def __init__(self, dim: int, window_size: Sequence[int], shift_size: Sequence[int], num_heads: int,
                 attention_dropout: float = 0.0, dropout: float = 0.0):
        super().__init__()
        self.window, self.shift = tuple(window_size), tuple(shift_size)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        height, width = self.window
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * height - 1) * (2 * width - 1), num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        rows, columns = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width),
                                                                   indexing='ij'))
        down = rows[:, None] - rows + height - 1
        right = columns[:, None] - columns + width - 1
        self.register_buffer('relative_position_index', down * (2 * width - 1) + right)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same shape; what is missing to whole windows is zeros, which attend as well."""
        _, height, width, channels = x.shape
        x = F.pad(x, (0, 0, 0, -width % self.window[1], 0, -height % self.window[0]))
        shifted = any(self.shift)
        if shifted:
            x = x.roll((-self.shift[0], -self.shift[1]), (1, 2))
        batch, padded_height, padded_width, _ = x.shape
        down, right = padded_height // self.window[0], padded_width // self.window[1]
        x = self._to_windows(x, down, right)

        qkv = self.qkv(x).view(batch, down * right, -1, 3, self.num_heads, channels // self.num_heads)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if shifted:
            q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
            bias = (bias + self._mask(padded_height, padded_width, bias)[:, None]).flatten(0, 1)
        else:
            q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(1, 2)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype))
        x = x.view(batch, down * right, self.num_heads, -1, channels // self.num_heads).transpose(2, 3)
        x = self.proj(x.flatten(3))

        x = x.view(batch, down, right, *self.window, channels).transpose(2, 3).reshape(
            batch, padded_height, padded_width, channels)
        if shifted:
            x = x.roll(self.shift, (1, 2))
        return x[:, :height, :width]

    def _to_windows(self, x: Tensor, down: int, right: int) -> Tensor:
        """``[B, H, W, ...]`` to ``[B, windows, pixels of a window, ...]``."""
        x = x.view(len(x), down, self.window[0], right, self.window[1], *x.shape[3:])
        return x.transpose(2, 3).flatten(1, 2).flatten(2, 3)

    def _mask(self, height: int, width: int, like: Tensor) -> Tensor:
        """-100 between pixels that only the shift has brought into one window: ``[windows, pixels, pixels]``."""
        parts = []
        for size, window, shift in zip((height, width), self.window, self.shift, strict=True):
            places = torch.arange(size, device=like.device)
            parts.append((places >= size - window).int() + (places >= size - shift).int())
        regions = self._to_windows((parts[0][:, None] * 3 + parts[1])[None], height // self.window[0],
                                   width // self.window[1])[0]
        apart = regions[:, :, None] != regions[:, None, :]
        return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(apart, -100.0)


class PatchEmbedding(nn.Module):
    """4x4 pixels to one token, and a norm: ``[B, 3, H, W]`` to ``[B, H / 4, W / 4, C]``. Keys: ``proj``, ``norm``."""

    def __init__(self, proj: nn.Conv2d, norm: nn.Module):
        super().__init__()
        self.proj, self.norm = proj, norm

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, -x.shape[-1] % PATCH, 0, -x.shape[-2] % PATCH))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class SwinStage(nn.Module):
    """Blocks at one resolution. Keys: ``blocks.{i}``; ``downsample`` (to the next stage's) where there is a next."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None):
        super().__init__()
        for block in blocks:
            first, activation, _, second, _ = block.mlp
            block.mlp = nn.Sequential(OrderedDict(fc1=first, act=activation, fc2=second))   # the published names
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample


class Swin(nn.Module):
    """A Swin Transformer that returns the feature maps of the stages asked for, each with a layer norm of its own.

    Keys: ``patch_embed.{proj,norm}``, ``layers.{0..3}.blocks.{block}.{norm1,attn,norm2,mlp.fc1,mlp.fc2}``,
    ``layers.{0..2}.downsample.{norm,reduction}``, ``norm{0..3}`` (one for each map that is returned).

    Args:
        embed_dim: width of the first stage, doubled at each further one: 96 in Swin-T and S, 128 in B, 192 in L.
        depths: blocks of the four stages: 2, 2, 6, 2 in Swin-T, 2, 2, 18, 2 in the others.
        num_heads: attention heads of the four stages, 32 channels each in the published models.
        window_size: side of the attention's windows: 7, or 12 in weights that come from images of 384 pixels.
        drop_path_rate: stochastic depth (Huang et al., 2016): probability that the last block is left out for an image
            in training; from 0 at the first block in equal steps.
        mlp_ratio: hidden width of the feed-forward blocks, as a multiple of the stage's.
        out_features: names of the stages to return; later stages are not built.
        freeze_at: how many leading parts (1: the patch embedding, 2: and the first stage, ...) are not trained.

    Raises:
        ValueError: an unknown stage, or numbers that do not fit together.
    """

    def __init__(self, embed_dim: int = 96, depths: Sequence[int] = (2, 2, 6, 2),
                 num_heads: Sequence[int] = (3, 6, 12, 24), window_size: int = 7, *, drop_path_rate: float = 0.3,
                 mlp_ratio: float = 4.0, out_features: Sequence[str] = STAGES, freeze_at: int = 0):
        super().__init__()
        _check_shape(embed_dim, depths, num_heads)
        unknown = [name for name in out_features if name not in STAGES]
        if unknown or not out_features:
            raise ValueError(f'backbone out_features {list(out_features)} must be some of {list(STAGES)}')
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'backbone drop_path_rate {drop_path_rate} must be at least 0 and below 1')
        if window_size < 1:
            raise ValueError(f'backbone window_size {window_size} must be at least 1')
        if not 0 <= freeze_at <= 1 + len(STAGES):
            raise ValueError(f'backbone freeze_at {freeze_at} must be 0 to {1 + len(STAGES)}: the patch embedding and '
                             'four stages')
        from torchvision.models.swin_transformer import SwinTransformer, SwinTransformerBlock
        features = SwinTransformer([PATCH, PATCH], embed_dim, list(depths), list(num_heads), [window_size] * 2,
                                   mlp_ratio=mlp_ratio, stochastic_depth_prob=drop_path_rate, num_classes=1,
                                   block=partial(SwinTransformerBlock, attn_layer=WindowAttention)).features

        self.out_features = tuple(name for name in STAGES if name in out_features)
        self.channels = {name: embed_dim << STAGES.index(name) for name in self.out_features}
        self.strides = {name: PATCH << STAGES.index(name) for name in self.out_features}
        self.patch_embed = PatchEmbedding(features[0][0], features[0][2])
        last = STAGES.index(self.out_features[-1])
        self.layers = nn.ModuleList(
            SwinStage(features[2 * index + 1], features[2 * index + 2] if index < last else None)
            for index in range(last + 1))
        for name in self.out_features:
            self.add_module(f'norm{STAGES.index(name)}', nn.LayerNorm(self.channels[name]))
        self.freeze_at = freeze_at
        for part in self._frozen():
            part.requires_grad_(False)

    def _frozen(self) -> Sequence[nn.Module]:
        return (self.patch_embed, *self.layers)[:self.freeze_at]

    def leave_unread(self, names: Iterable[str]) -> None:
        """Takes the norms of outputs that nobody reads out of the training.

        Several processes that train together would wait for their gradients, which never come.
        """
        for name in names:
            getattr(self, f'norm{STAGES.index(name)}').requires_grad_(False)

    def train(self, mode: bool = True) -> Swin:
        """As every module's, but frozen parts stay in evaluation mode: none of their blocks is left out."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps by stage name.

        Args:
            x: normalised images ``[B, 3, H, W]`` of any size.

        Returns:
            ``{name: [B, channels[name], H / strides[name], W / strides[name]]}``, sizes rounded up.
        """
        features = {}
        x = self.patch_embed(x)
        for index, (name, stage) in enumerate(zip(STAGES, self.layers)):
            x = stage.blocks(x)
            if name in self.out_features:
                features[name] = getattr(self, f'norm{index}')(x).permute(0, 3, 1, 2)
            if stage.downsample is not None:
                x = stage.downsample(x)
        return features


def _check_shape(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
    if len(depths) != len(STAGES) or len(num_heads) != len(STAGES) or min(depths) < 1:
        raise ValueError(f'backbone depths {list(depths)} and num_heads {list(num_heads)} must be four numbers each, '
                         'one a stage, of at least 1')
    for index, heads in enumerate(num_heads):
        if heads < 1 or (embed_dim << index) % heads:
            raise ValueError(f'backbone num_heads {list(num_heads)}: {heads} heads do not share the '
                             f'{embed_dim << index} channels of {STAGES[index]}')
