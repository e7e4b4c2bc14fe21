"""The two residual blocks of Table 1, and where a mixer sits in them (Figure 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dsanet.convs import ShiftConv, SpatialConv, TemporalConv, VolumeConv

Conv = SpatialConv | TemporalConv | VolumeConv


@dataclass(frozen=True)
class BlockSpec:
    """What one residual block is made of.

    ``inflated``: its temporal kernels have 3 taps. ``shift``: TSM's shift before the first
    convolution. ``inflate_shortcut``: the 1x1 shortcut too gets 3 taps.
    """

    inputs: int
    planes: int
    stride: int
    inflated: bool = False
    shift: bool = False
    inflate_shortcut: bool = False


class Block(nn.Module):
    """A residual block; a ``mixer`` (DSA, SE, V4D) works at one ``position`` of it.

    In the residual branch, position I is the input of the first convolution, II of the second, III
    of the third (in a basic block: after the second's batch norm) and IV after the third's batch
    norm; "end" is the block's output.
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
        plain = spec.stride == 1 and spec.inputs == outputs
        self.shortcut = None if plain else Shortcut(spec, outputs)

    def channels_at(self, position: str) -> int:
        """C of the map that a mixer at ``position`` sees."""
        outputs = self.spec.planes * self.expansion
        widths = {"I": self.spec.inputs, self.positions[-1]: outputs, "end": outputs}
        return widths.get(position, self.spec.planes)

    def insert(self, mixer: nn.Module, position: str) -> None:
        """Put ``mixer`` at ``position``: one of ``positions``, or "end"."""
        self.mixer, self.position = mixer, position

    def mix(self, position: str, x: Tensor, frames: int) -> Tensor:
        """x, or what the mixer makes of it where it sits at ``position``."""
        if self.mixer is None or self.position != position:
            return x
        return self.mixer(x, frames)

    def join(self, x: Tensor, residual: Tensor, frames: int) -> Tensor:
        """The block's output: ReLU of residual branch and shortcut together."""
        side = x if self.shortcut is None else self.shortcut(x, frames)
        return self.mix("end", F.relu(residual.add_(side), inplace=True), frames)


class Shortcut(nn.Module):
    """1x1 convolution with the block's spatial stride, and its batch norm."""

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
    """R18's block: two k x 3 x 3 convolutions, k = 3 where inflated (Table 1, left)."""

    expansion = 1
    positions = ("I", "II", "III")

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        self.conv1 = _square(spec, spec.inputs, spec.stride)
        self.bn1 = nn.BatchNorm2d(spec.planes)
        self.conv2 = _square(spec, spec.planes, 1, first=False)
        self.bn2 = nn.BatchNorm2d(spec.planes)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (N*T, C, H, W) channels_last -> (N*T, C', H', W') channels_last."""
        y = self.mix("I", x, frames)
        y = F.relu(self.bn1(self.conv1(y, frames)), inplace=True)
        y = self.mix("II", y, frames)
        y = self.bn2(self.conv2(y, frames))
        return self.join(x, self.mix("III", y, frames), frames)


class Bottleneck(Block):
    """R50's block: k x 1 x 1, 1 x 3 x 3 (with the stride), 1 x 1 x 1 (Table 1, right)."""

    expansion = 4
    positions = ("I", "II", "III", "IV")

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        planes, outputs = spec.planes, spec.planes * self.expansion
        self.conv1 = _entry(spec)
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
        return self.join(x, self.mix("IV", y, frames), frames)


def _square(spec: BlockSpec, inputs: int, stride: int, *, first: bool = True) -> Conv:
    if spec.inflated:
        return VolumeConv(inputs, spec.planes, 3, stride=stride)
    kind = ShiftConv if spec.shift and first else SpatialConv
    return kind(inputs, spec.planes, 3, stride=stride)


def _entry(spec: BlockSpec) -> Conv:
    if spec.inflated:
        return TemporalConv(spec.inputs, spec.planes)
    kind = ShiftConv if spec.shift else SpatialConv
    return kind(spec.inputs, spec.planes, 1)
