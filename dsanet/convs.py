"""Convolutions over folded video maps (N*T, C, H, W), channels_last, and over snippets.

In memory a channels_last map is (N, T, H, W, C), so splitting the batch axis or joining H and W is
a view. Each kernel of the network runs as an ordinary convolution on such a view, without a copy
or a transposition. (Where a backend's convolution does not keep the layout, as float64 3-D ones on
the CPU, there is a copy and the result is the same.) Every forward takes T as its second argument,
hence the ``override`` marks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsanet.errors import require
from dsanet.folding import at_least_float32, shift_axis1


class SpatialConv(nn.Conv2d):
    """1 x k x k convolution, run as a 2-D one on every frame."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        """x (N*T, C, H, W) -> (N*T, C', H', W')."""
        return super().forward(x)


class TemporalConv(nn.Conv2d):
    """3 x 1 x 1 convolution, run as a (3, 1) one on the view (N, C, T, H*W)."""

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

    Used for I3D-R18's 3 x 3 x 3. On a CPU it is 1.2 to 1.8 times as fast as three shifted 3 x 3
    convolutions, or one over three stacked frames (docs/models.md);
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
    """Convolution after a temporal shift (TSM, Lin et al. 2019, in the residual branch).

    The first ``C // 8`` of the C input channels come from the next frame, the second ``C // 8``
    from the previous one, with zeros beyond the ends of the snippet: snippets do not mix.
    """

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        """x (N*T, C, H, W) channels_last -> (N*T, C', H', W')."""
        return super().forward(temporal_shift(x, frames), frames)


def temporal_shift(x: Tensor, frames: int) -> Tensor:
    """Move 1/8 of the channels of x (N*T, C, H, W) one frame back in time, and 1/8 one forward."""
    fold = x.shape[1] // 8
    v = x.permute(0, 2, 3, 1).unflatten(0, (-1, frames))
    next_, previous, rest = v.split((fold, fold, x.shape[1] - 2 * fold), dim=-1)
    moved = torch.cat((shift_axis1(next_, 1), shift_axis1(previous, -1), rest), dim=-1)
    return moved.flatten(0, 1).permute(0, 3, 1, 2)


class V4DBlock(nn.Module):
    """x + BN(conv4d(x)): V4D's residual 4-D convolution (Eq. 1, Table 2i) over U and T.

    The kernel is 3 x 3 x 1 x 1 over (U, T, H, W) at full width, which gives the published 143.0 G
    and R18's +0.8 M parameters. The paper does not specify the rest; chosen here: a batch norm
    whose weight starts at zero, so that the block starts as the identity, and no ReLU after the
    sum. It runs as a (3, 3, 1) convolution on the channels_last_3d view (B, C, U, T, H*W).
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
    """Squeeze and excitation (Hu et al. 2018) in place of DSA (Table 2h).

    The squeeze is over T, H and W of each snippet, and ``reduction`` is 16 as in SENet. The paper
    says only that SE replaces the DSA module.
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
        pooled = v.mean(dim=(1, 2, 3), dtype=at_least_float32(v.dtype))  # (N, C)
        gate = self.excite(pooled).sigmoid().to(v.dtype)
        return (v * gate[:, None, None, None]).flatten(0, 1).permute(0, 3, 1, 2)
