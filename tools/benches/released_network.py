"""The paper's networks as the released code formulates them: Conv3d over (N, C, T, H, W) maps.

Each DSA is one grouped convolution whose kernel depends on the input. The code is independent of
the package, so that benchmarks and tests can compare with it. Its state dict has the names of the
released checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEP_OF_POSITION = {"I": 0, "II": 1, "III": 2, "IV": 3}


@dataclass(frozen=True)
class Plan:
    """The options of one network; `mixer` is None, "dsa", "se" or "v4d"."""

    depth: int = 50
    mixer: str | None = None
    shift: bool = False
    segments: int = 4
    alpha: int = 2
    beta: float = 1 / 8
    taps: int = 3
    position: str = "II"
    stages: tuple[int, ...] = (3, 4)
    every: int = 2
    width: int = 64
    blocks: tuple[int, ...] | None = None
    wide_shortcuts: bool = False
    dropout: float = 0.5


def plan_for(name: str, **options: object) -> Plan:
    """The plan of a network by the package's name for it, such as "dsa_i3d_r50"."""
    mixer = name.split("_")[0]
    plan = Plan(
        depth=int(name[-2:]),
        mixer=mixer if mixer in ("dsa", "se", "v4d") else None,
        shift="tsm" in name,
    )
    return replace(plan, **options)  # type: ignore[arg-type]


def conv(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1) -> nn.Conv3d:
    """Same-padded Conv3d with a spatial stride."""
    padding = tuple(k // 2 for k in kernel)
    return nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), padding, bias=False)


class Residual(nn.Module):
    """A basic block or a bottleneck; a step is one of its convolutions with its batch norm."""

    def __init__(self, plan: Plan, inputs: int, planes: int, stride: int, taps: int) -> None:
        super().__init__()
        self.shift = plan.shift
        if plan.depth == 18:
            self.count, outputs = 2, planes
            self.conv1 = conv(inputs, planes, (taps, 3, 3), stride)
            self.conv2 = conv(planes, planes, (taps, 3, 3))
        else:
            self.count, outputs = 3, planes * 4
            self.conv1 = conv(inputs, planes, (taps, 1, 1))
            self.conv2 = conv(planes, planes, (1, 3, 3), stride)
            self.conv3 = conv(planes, outputs, (1, 1, 1))
        for i in range(self.count):
            bn = nn.BatchNorm3d(outputs if i == self.count - 1 else planes)
            self.add_module(f"bn{i + 1}", bn)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            side = conv(inputs, outputs, (taps if plan.wide_shortcuts else 1, 1, 1), stride)
            self.downsample = nn.Sequential(side, nn.BatchNorm3d(outputs))

    def run_step(self, i: int, x: Tensor) -> Tensor:
        """Convolution i, batch norm, and a ReLU on all but the last."""
        if i == 0 and self.shift:
            x = shift(x)
        x = getattr(self, f"bn{i + 1}")(getattr(self, f"conv{i + 1}")(x))
        return F.relu(x) if i < self.count - 1 else x

    def width_at(self, step: int) -> int:
        """Channels at the input of a step; after the last step, those of its output."""
        if step == self.count:
            return getattr(self, f"conv{self.count}").out_channels
        return getattr(self, f"conv{step + 1}").in_channels

    def forward(self, x: Tensor, mixer: nn.Module | None = None, mixer_step: int = -1) -> Tensor:
        side = x if self.downsample is None else self.downsample(x)
        for i in range(self.count):
            x = self.run_step(i, mixer(x) if mixer is not None and i == mixer_step else x)
        if mixer is not None and mixer_step == self.count:
            x = mixer(x)
        return F.relu(x + side)


class Wrapped(nn.Module):
    """A residual block with a mixer inside, under the released names `block` and `dsa`."""

    def __init__(self, plan: Plan, block: Residual) -> None:
        super().__init__()
        self.block = block
        self.step = STEP_OF_POSITION[plan.position]
        channels = block.width_at(self.step)
        self.dsa = GroupedDSA(plan, channels) if plan.mixer == "dsa" else Excite(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, self.dsa, self.step)


class GroupedDSA(nn.Module):
    """DSA as one grouped convolution with a kernel per video and channel, so B * C groups."""

    def __init__(self, plan: Plan, channels: int) -> None:
        super().__init__()
        self.segments, self.taps = plan.segments, plan.taps
        self.split = int(channels * plan.beta)
        hidden = plan.segments * plan.alpha
        self.generate = nn.Sequential(
            nn.Linear(plan.segments, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, plan.taps, bias=False),
            nn.Softmax(-1),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x[:, : self.split], x[:, self.split :]
        snippets, c, t, h, w = first.shape
        videos = snippets // self.segments
        v = first.reshape(videos, self.segments, c, t, h, w).transpose(1, 2).contiguous()
        kernel = self.generate(v.mean((3, 4, 5)).view(videos * c, self.segments))
        v = F.conv3d(
            v.view(1, videos * c, self.segments, t, h * w),
            kernel.view(videos * c, 1, self.taps, 1, 1),
            padding=(self.taps // 2, 0, 0),
            groups=videos * c,
        )
        v = v.view(videos, c, self.segments, t, h, w).transpose(1, 2).reshape_as(first)
        return torch.cat((v, rest), dim=1)


class Excite(nn.Module):
    """Squeeze-and-excitation on each snippet."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.down = nn.Linear(channels, hidden)
        self.up = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3, 4))))))
        return x * gate[:, :, None, None, None]


class Conv4d(nn.Module):
    """V4D's block, x + BN(conv4d(x)) with a 3 x 3 x 1 x 1 kernel: one Conv3d per tap over U."""

    def __init__(self, plan: Plan, channels: int) -> None:
        super().__init__()
        self.segments = plan.segments
        self.taps = nn.ModuleList(conv(channels, channels, (3, 1, 1)) for _ in range(3))
        self.bn = nn.BatchNorm3d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        v = x.view(-1, self.segments, *x.shape[1:])
        zero = torch.zeros_like(v[:, :1])
        padded = torch.cat((zero, v, zero), dim=1)
        out = sum(
            tap(padded[:, i : i + self.segments].flatten(0, 1)) for i, tap in enumerate(self.taps)
        )
        return x + self.bn(out)


def shift(x: Tensor) -> Tensor:
    """TSM's shift of (N, C, T, H, W): 1/8 from the next frame, 1/8 from the previous one."""
    fold = x.shape[1] // 8
    out = torch.zeros_like(x)
    out[:, :fold, :-1] = x[:, :fold, 1:]
    out[:, fold : 2 * fold, 1:] = x[:, fold : 2 * fold, :-1]
    out[:, 2 * fold :] = x[:, 2 * fold :]
    return out


class Backbone(nn.Module):
    """The paper's Table 1: (N, 3, T, H, W) -> (N, C, T, H/32, W/32)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.conv1 = conv(3, plan.width, (1, 7, 7), 2)
        self.bn1 = nn.BatchNorm3d(plan.width)
        self.channels = plan.width
        counts = plan.blocks or ((2, 2, 2, 2) if plan.depth == 18 else (3, 4, 6, 3))
        for stage, count in enumerate(counts, start=2):
            self.add_module(f"layer{stage - 1}", self.make_stage(stage, count))

    def make_stage(self, stage: int, count: int) -> nn.Sequential:
        """The residual blocks of one stage, with the plan's mixers."""
        plan, blocks = self.plan, []
        planes = plan.width * 2 ** (stage - 2)
        taps = 3 if stage >= 4 and not plan.shift else 1
        for i in range(count):
            block = Residual(plan, self.channels, planes, 2 if i == 0 and stage > 2 else 1, taps)
            self.channels = planes * (1 if plan.depth == 18 else 4)
            chosen = stage in plan.stages and (i + 1) % plan.every == 0
            wrap = chosen and plan.mixer in ("dsa", "se")
            blocks.append(Wrapped(plan, block) if wrap else block)
            if plan.mixer == "v4d" and stage in plan.stages and i == (count - 1) // 2:
                blocks.append(Conv4d(plan, self.channels))
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return x


class Head(nn.Module):
    """Pool, dropout, classify each snippet, average the logits."""

    def __init__(self, plan: Plan, channels: int, num_classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(plan.dropout)
        self.fc_cls = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor, videos: int) -> Tensor:
        logits = self.fc_cls(self.dropout(x.mean((2, 3, 4))))
        return logits.view(videos, -1, logits.shape[-1]).mean(1)


class ReleasedNetwork(nn.Module):
    """Normalised float clips (B, U, 3, T, H, W) -> logits (B, classes)."""

    def __init__(self, plan: Plan, num_classes: int) -> None:
        super().__init__()
        self.backbone = Backbone(plan)
        self.cls_head = Head(plan, self.backbone.channels, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        return self.cls_head(self.backbone(clips.flatten(0, 1)), clips.shape[0])


def normalise(clips: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Clips, uint8 (B, U, T, H, W, 3), as the released network takes them: (B, U, 3, T, H, W)."""
    mean = torch.tensor((123.675, 116.28, 103.53), device=clips.device, dtype=dtype)
    std = torch.tensor((58.395, 57.12, 57.375), device=clips.device, dtype=dtype)
    return ((clips.to(dtype) - mean) / std).permute(0, 1, 5, 2, 3, 4).contiguous()
