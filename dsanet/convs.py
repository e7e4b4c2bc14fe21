"""Convolutions over folded video maps (N*T, C, H, W), channels_last, and over snippets.

A channels_last map is, in memory, (N, T, H, W, C): splitting the batch axis, or joining H and W, is
a view. So each kernel of the network runs as an ordinary convolution on a view of the map, and
nothing is copied or transposed. (A backend whose convolution does not keep the layout, as the
CPU's float64 3-D one, pays a copy and is still right.) Every forward takes T as its second
argument, which is what the ``override`` marks are for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsanet.errors import require
from dsanet.folding import accurate, later


class SpatialConv(nn.Conv2d):
    """1 x k x k convolution: a plain 2-D one, whatever T."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        """x (N*T, C, H, W) -> (N*T, C', H', W')."""
        return super().forward(x)


class TemporalConv(nn.Conv2d):
    """3 x 1 x 1 convolution, run as a (3, 1) one over the view (N, C, T, H*W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, (3, 1), 1, (1, 0), bias=False)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        """x (N*T, C, H, W) channels_last -> (N*T, C', H, W) channels_last."""
        maps, channels, height, width = x.shape
        v = x.permute(0, 2, 3, 1).view(maps // frames, frames, height * width, channels)
        y = super().forward(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return y.reshape(maps, height, width, -1).permute(0, 3, 1, 2)


class VolumeConv(nn.Conv3d):
    """3 x k x k convolution, run on the channels_last_3d view (N, C, T, H, W).

    For I3D-R18's 3 x 3 x 3. Against three shifted 3 x 3 convolutions, or one over three stacked
    frames, this was 1.2 to 1.8 times faster on a CPU (docs/models.md);
    ``tools/bench.py model --kernels`` repeats the comparison, on a GPU too.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        size, steps, pad = (3, kernel, kernel), (1, stride, stride), kernel // 2
        super().__init__(inputs, outputs, size, steps, (1, pad, pad), bias=False)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        """x (N*T, C, H, W) channels_last -> (N*T, C', H', W') channels_last."""
        v = x.permute(0, 2, 3, 1).unflatten(0, (-1, frames)).permute(0, 4, 1, 2, 3)
        return super().forward(v).permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)


class ShiftConv(SpatialConv):
    """Temporal shift before a convolution (TSM, Lin et al. 2019, in its residual-branch form).

    Of the C inputs the first ``C // 8`` channels come from the next frame, the second ``C // 8``
    from the previous one, with zeros beyond the ends of the snippet: nothing crosses snippets.
    """

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        """x (N*T, C, H, W) channels_last -> (N*T, C', H', W')."""
        return super().forward(shift(x, frames), frames)


def shift(x: Tensor, frames: int) -> Tensor:
    """Shift 1/8 of the channels of x (N*T, C, H, W), channels_last, back and 1/8 forth in time."""
    fold = x.shape[1] // 8
    v = x.permute(0, 2, 3, 1).unflatten(0, (-1, frames))
    back, forth, rest = v.split((fold, fold, x.shape[1] - 2 * fold), dim=-1)
    moved = torch.cat((later(back, 1), later(forth, -1), rest), dim=-1)
    return moved.flatten(0, 1).permute(0, 3, 1, 2)


class V4DBlock(nn.Module):
    """x + BN(conv4d(x)): V4D's residual 4-D convolution (Eq. 1, Table 2i) over U and T.

    The kernel is 3 x 3 x 1 x 1 over (U, T, H, W) at full width, which gives the published 143.0 G
    and R18's +0.8 M parameters. The batch norm, its zero-initialised weight (so that the block
    starts as the identity) and the absence of a ReLU after the sum are our choice: the paper is
    silent. It runs as a (3, 3, 1) convolution on the channels_last_3d view (B, C, U, T, H*W).
    """

    def __init__(self, channels: int, segments: int) -> None:
        super().__init__()
        require(segments >= 2, "segments", "be at least 2", segments)
        self.segments = segments
        self.conv = nn.Conv3d(channels, channels, (3, 3, 1), padding=(1, 1, 0), bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (B*U*T, C, H, W) channels_last -> the same shape and strides."""
        maps, channels, height, width = x.shape
        size = (maps // (self.segments * frames), self.segments, frames, height * width, channels)
        v = x.permute(0, 2, 3, 1).view(size).permute(0, 4, 1, 2, 3)
        y = self.conv(v).permute(0, 2, 3, 4, 1).reshape(maps, height, width, channels)
        return x + self.bn(y.permute(0, 3, 1, 2))


class SE(nn.Module):
    """Squeeze and excitation (Hu et al. 2018), in DSA's place for Table 2h.

    The squeeze is over T, H and W of each snippet; ``reduction`` 16 is SENet's own. Both are our
    reading: the paper says only that SE replaces the DSA module.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.excite = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (N*T, C, H, W) channels_last -> the same shape and strides."""
        v = x.permute(0, 2, 3, 1).unflatten(0, (-1, frames))
        pooled = v.mean(dim=(1, 2, 3), dtype=accurate(v.dtype))  # (N, C)
        gate = self.excite(pooled).sigmoid().to(v.dtype)
        return (v * gate[:, None, None, None]).flatten(0, 1).permute(0, 3, 1, 2)
