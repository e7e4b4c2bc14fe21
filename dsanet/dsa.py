"""Dynamic Segment Aggregation (DSA): mixes the snippets of a video (section 3 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsanet.errors import ModelError, require
from dsanet.folding import at_least_float32, autocast_disabled, is_channels_last, shift_axis1


class DSA(nn.Module):
    """Aggregate neighbouring snippets with a softmax kernel generated from their pooled features.

    Equations (2) to (4) of the DSANet paper. The first ``floor(beta * C)`` channels are averaged
    over T, H and W. An MLP shared by all channels turns each channel's U averages into
    ``kernel_size`` softmax weights, which weight the snippets u-1, u, u+1 (zeros beyond the ends).
    The other channels pass unchanged.

    Args:
        segments: U, snippets per video. They are neighbours in the batch axis.
        alpha: width of the MLP's hidden layer in units of U (Table 2c).
        beta: share of the channels that is aggregated (Table 2e).
        kernel_size: L, odd (3 in the paper).
        frames: default T of folded maps, used when ``forward`` gets none.

    Raises:
        OptionError: an option out of range.
    """

    def __init__(
        self,
        segments: int = 4,
        *,
        alpha: int = 2,
        beta: float = 1 / 8,
        kernel_size: int = 3,
        frames: int = 1,
    ) -> None:
        super().__init__()
        _check(segments, alpha, beta, kernel_size)
        self.segments = segments
        self.beta = beta
        self.kernel_size = kernel_size
        self.frames = frames
        # theta of Eq. (2), with PyTorch's default initialisation as in the released code.
        self.generate = nn.Sequential(
            nn.Linear(segments, alpha * segments, bias=False),
            nn.BatchNorm1d(alpha * segments),
            nn.ReLU(inplace=True),
            nn.Linear(alpha * segments, kernel_size, bias=False),
            nn.Softmax(dim=-1),
        )

    def forward(self, x: Tensor, frames: int | None = None) -> Tensor:
        """Mix the snippets of x, (B*U*T, C, H, W) or (B*U, C, T, H, W); same shape and strides.

        Args:
            x: feature maps; the 4-D form has T folded into its batch axis.
            frames: T of a 4-D map; None for the module's own.

        Raises:
            ModelError: a map of another rank, or a batch axis that is not a multiple of U (* T).
        """
        if x.ndim not in (4, 5):
            raise ModelError(f"DSA needs 4-D or 5-D maps, got shape {tuple(x.shape)}")
        frames = (self.frames if frames is None else frames) if x.ndim == 4 else 1
        if x.shape[0] % (self.segments * frames):
            raise ModelError(
                f"DSA: the batch axis must be a multiple of {self.segments} snippets x {frames} "
                f"frames, got {x.shape[0]}"
            )
        # In memory order, splitting the batch axis is a view and every result is dense.
        last = is_channels_last(x)
        v = (x.movedim(1, -1) if last else x).unflatten(0, (-1, self.segments, frames))
        y = self._mix(v, v.ndim - 1 if last else 3).flatten(0, 2)
        return y.movedim(-1, 1) if last else y

    def _mix(self, v: Tensor, axis: int) -> Tensor:
        """Eq. (4) for v (B, U, T, ...) whose channels are at ``axis``."""
        channels = v.shape[axis]
        mixed = aggregated_channels(channels, self.beta)
        first, rest = v.split((mixed, channels - mixed), dim=axis)
        out = aggregate(first, self.kernel(first, axis), axis)
        return torch.cat((out, rest), dim=axis) if mixed < channels else out

    def kernel(self, v: Tensor, axis: int) -> Tensor:
        """The kernel K (B, c, L) of Eq. (2) for v (B, U, T, ...) with c channels at ``axis``.

        The averages and the MLP stay in float32 under autocast: a batch norm normalises averages
        that are close to each other, where bfloat16's three digits would be noise.
        """
        space = [i for i in range(2, v.ndim) if i != axis]
        pooled = v.mean(dim=space, dtype=at_least_float32(v.dtype))  # (B, U, c)
        with autocast_disabled(v.device.type):
            weights = self.generate(pooled.transpose(1, 2).flatten(0, 1))  # (B * c, L)
        return weights.unflatten(0, (v.shape[0], v.shape[axis]))

    def extra_repr(self) -> str:
        return f"segments={self.segments}, beta={self.beta:g}, kernel_size={self.kernel_size}"


def aggregate(v: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Eq. (3): the sum over l of K[b, c, l] * v[b, u + l - L // 2], with zeros beyond the ends.

    v: (B, U, ...) with c channels at ``axis``; kernel: (B, c, L). The result has v's shape.
    """
    shape = [1] * v.ndim
    shape[0], shape[axis] = v.shape[0], v.shape[axis]
    weights = [weight.reshape(shape) for weight in kernel.to(v.dtype).unbind(-1)]
    reach = len(weights) // 2
    out = weights[reach] * v
    for tap, weight in enumerate(weights):
        if tap != reach:
            out = out + weight * shift_axis1(v, tap - reach)
    return out


def aggregated_channels(channels: int, beta: float) -> int:
    """Number of channels that DSA mixes, floor(beta * C).

    Raises:
        OptionError: for fewer than 2: DSA's batch norm over B * c rows needs 2 for a variance.
    """
    mixed = int(beta * channels)
    must = f"select at least 2 of {channels} channels"
    require(mixed >= 2, "beta", must, beta)
    return mixed


def _check(segments: int, alpha: int, beta: float, kernel_size: int) -> None:
    require(segments >= 2, "segments", "be at least 2", segments)
    require(alpha >= 1, "alpha", "be at least 1", alpha)
    require(0 < beta <= 1, "beta", "be in (0, 1]", beta)
    require(kernel_size >= 1 and kernel_size % 2 == 1, "kernel_size", "be odd", kernel_size)
