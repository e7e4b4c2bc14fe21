"""The two residual blocks of Table 1, with the positions where snippets are mixed (Figure 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dsanet.convs import ShiftConv, SpatialConv, TemporalConv, VolumeConv

Conv = SpatialConv | TemporalConv | VolumeConv


@dataclass(frozen=True)
class BlockSpec:
    """Layout of one residual block.

    ``inputs`` and ``planes`` are channels. ``inflated``: temporal kernels have 3 taps. ``shift``:
    TSM's shift before the first convolution. ``inflate_shortcut``: the 1x1 shortcut has 3 taps too.
    """

    inputs: int
    planes: int
    stride: int
    inflated: bool = False
    shift: bool = False
    inflate_shortcut: bool = False


class Block(nn.Module):
    """A residual block with an optional ``mixer`` (DSA, SE, V4D) at one ``position``.

    Positions I, II and III are the inputs of the first, second and third convolution of the
    residual branch, and IV is after the third batch norm. A basic block has two convolutions; its
    III is after the second batch norm. "end" is the block's output.
    """

    expansion: int
    positions: tuple[str, ...]
    mixer: nn.Module | None
    position: str
    shortcut: Shortcut | None

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mixer = None
        self.position = ""
        outputs = spec.planes * self.expansion
        is_identity = spec.stride == 1 and spec.inputs == outputs
        self.shortcut = None if is_identity else Shortcut(spec, outputs)

    def channels_at(self, position: str) -> int:
        """Channels of the map at ``position``."""
        outputs = self.spec.planes * self.expansion
        widths = {"I": self.spec.inputs, self.positions[-1]: outputs, "end": outputs}
        return widths.get(position, self.spec.planes)

    def insert(self, mixer: nn.Module, position: str) -> None:
        """Place ``mixer`` at ``position``: one of ``positions``, or "end"."""
        self.mixer, self.position = mixer, position

    def mix(self, position: str, x: Tensor, frames: int) -> Tensor:
        """Apply the mixer to x if it is at ``position``; otherwise return x."""
        if self.mixer is None or self.position != position:
            return x
        return self.mixer(x, frames)

    def add_shortcut(self, x: Tensor, residual: Tensor, frames: int) -> Tensor:
        """The block's output: ReLU of the sum of residual branch and shortcut."""
        shortcut = x if self.shortcut is None else self.shortcut(x, frames)
        return self.mix("end", F.relu(residual.add_(shortcut), inplace=True), frames)


class Shortcut(nn.Module):
    """1x1 convolution with the block's spatial stride, followed by a batch norm."""

    def __init__(self, spec: BlockSpec, outputs: int) -> None:
        super().__init__()
        self.conv: Conv
        if spec.inflate_shortcut:
            self.conv = VolumeConv(spec.inputs, outputs, 1, stride=spec.stride)
        else:
            self.conv = SpatialConv(spec.inputs, outputs, 1, stride=spec.stride)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (N*T, C, H, W) -> (N*T, C', H', W')."""
        return self.bn(self.conv(x, frames))


class BasicBlock(Block):
    """Block of R18: two k x 3 x 3 convolutions, k = 3 if inflated, else 1 (Table 1, left)."""

    expansion = 1
    positions = ("I", "II", "III")

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        self.conv1 = _conv3x3(spec, spec.inputs, spec.stride)
        self.bn1 = nn.BatchNorm2d(spec.planes)
        self.conv2 = _conv3x3(spec, spec.planes, 1, first=False)
        self.bn2 = nn.BatchNorm2d(spec.planes)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (N*T, C, H, W) channels_last -> (N*T, C', H', W') channels_last."""
        y = self.mix("I", x, frames)
        y = F.relu(self.bn1(self.conv1(y, frames)), inplace=True)
        y = self.mix("II", y, frames)
        y = self.bn2(self.conv2(y, frames))
        return self.add_shortcut(x, self.mix("III", y, frames), frames)


class Bottleneck(Block):
    """Block of R50: k x 1 x 1, 1 x 3 x 3 (with the stride), 1 x 1 x 1 (Table 1, right)."""

    expansion = 4
    positions = ("I", "II", "III", "IV")

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        planes, outputs = spec.planes, spec.planes * self.expansion
        self.conv1 = _first_conv(spec)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = SpatialConv(planes, planes, 3, stride=spec.stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = SpatialConv(planes, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (N*T, C, H, W) channels_last -> (N*T, C', H', W') channels_last."""
        y = self.mix("I", x, frames)
        y = F.relu(self.bn1(self.conv1(y, frames)), inplace=True)
        y = self.mix("II", y, frames)
        y = F.relu(self.bn2(self.conv2(y, frames)), inplace=True)
        y = self.mix("III", y, frames)
        y = self.bn3(self.conv3(y, frames))
        return self.add_shortcut(x, self.mix("IV", y, frames), frames)


def _conv3x3(spec: BlockSpec, inputs: int, stride: int, *, first: bool = True) -> Conv:
    if spec.inflated:
        return VolumeConv(inputs, spec.planes, 3, stride=stride)
    kind = ShiftConv if spec.shift and first else SpatialConv
    return kind(inputs, spec.planes, 3, stride=stride)


def _first_conv(spec: BlockSpec) -> Conv:
    if spec.inflated:
        return TemporalConv(spec.inputs, spec.planes)
    kind = ShiftConv if spec.shift else SpatialConv
    return kind(spec.inputs, spec.planes, 1)
