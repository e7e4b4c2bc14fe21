"""The ResNet of Table 1 on folded frames: stem and four stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dsanet.blocks import BasicBlock, Block, BlockSpec, Bottleneck
from dsanet.convs import SpatialConv


@dataclass(frozen=True)
class TrunkSpec:
    """A backbone of Table 1: block type, blocks per stage, stem width and temporal kernels.

    ``inflated``: stages (2 to 5) whose kernels have 3 taps over T. ``shift``: TSM's shift in every
    block. ``inflate_shortcuts``: the shortcuts of inflated stages have 3 taps too.
    """

    block: type[Block]
    blocks: tuple[int, int, int, int]
    width: int = 64
    inflated: tuple[int, ...] = (4, 5)
    shift: bool = False
    inflate_shortcuts: bool = False


R18 = TrunkSpec(BasicBlock, (2, 2, 2, 2))
R50 = TrunkSpec(Bottleneck, (3, 4, 6, 3))
TSM_R50 = TrunkSpec(Bottleneck, (3, 4, 6, 3), inflated=(), shift=True)


class Trunk(nn.Module):
    """conv1 to res5: (B*U*T, 3, H, W) channels_last -> (B*U*T, C, H/32, W/32) channels_last.

    There is no temporal stride. On folded maps a 2-D batch norm has the statistics of a 3-D one:
    over batch, time and space. Stage ``n`` (2 to 5) is ``layer{n-1}``.
    """

    def __init__(self, spec: TrunkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.conv1 = SpatialConv(3, spec.width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(spec.width)
        self.channels = spec.width
        for stage in range(2, 6):
            self.add_module(f"layer{stage - 1}", self._make_stage(stage))
        self._initialise()

    def stage(self, number: int) -> list[Block]:
        """The blocks of res``number``, 2 to 5."""
        return list(getattr(self, f"layer{number - 1}"))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Feature maps of x (B*U*T, 3, H, W); frames: T."""
        x = F.relu(self.bn1(self.conv1(x, frames)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        for number in range(2, 6):
            for block in self.stage(number):
                x = block(x, frames)
        return x

    def _make_stage(self, number: int) -> nn.ModuleList:
        planes = self.spec.width * 2 ** (number - 2)
        blocks = nn.ModuleList()
        for index in range(self.spec.blocks[number - 2]):
            first = index == 0
            inflated = number in self.spec.inflated
            spec = BlockSpec(
                inputs=self.channels,
                planes=planes,
                stride=2 if first and number > 2 else 1,
                inflated=inflated,
                shift=self.spec.shift,
                inflate_shortcut=inflated and self.spec.inflate_shortcuts,
            )
            blocks.append(self.spec.block(spec))
            self.channels = planes * self.spec.block.expansion
        return blocks

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def to_channels_last(module: nn.Module) -> nn.Module:
    """Convert all convolution weights, 4-D and 5-D, to channels_last in place."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim not in layouts:
            continue
        parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.ndim])
        if parameter[0, 0].numel() == 1:
            # Kernels of one tap fit either layout. Their gradients have these strides, and DDP
            # copies a gradient whose strides are not those of its weight.
            inputs = parameter.shape[1]
            strides = (inputs, 1, *[inputs] * (parameter.ndim - 2))
            parameter.data = parameter.data.as_strided(parameter.shape, strides)
    return module
