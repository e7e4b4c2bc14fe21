"""Optimiser, learning-rate schedule and weight averaging."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dsanet.engine.errors import UsageError
from dsanet.errors import check_choices, require


@dataclass(frozen=True)
class OptimConfig:
    """SGD with momentum.

    Attributes:
        lr: peak learning rate of a global batch of `reference_videos`.
        reference_videos: the global batch that `lr` was stated for; another batch scales it
            linearly.
        momentum: momentum of SGD.
        nesterov: look ahead, as the release does.
        weight_decay: L2 penalty.
        decay_norm_and_bias: apply the penalty to normalisation and biases too, as the release does.
        clip_norm: bound of the gradient's total norm; 0 switches clipping off.
        ema: decay of the averaged weights that validation and evaluation then use; 0: none.
    """

    lr: float = 0.015
    reference_videos: int = 96
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True
    clip_norm: float = 40.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "clip_norm"):
            value = getattr(self, name)
            require(value >= 0, f"optim.{name}", "be at least 0", value, UsageError)
        for name in ("momentum", "ema"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optim.{name}", "be in [0, 1)", value, UsageError)
        videos = self.reference_videos
        require(videos >= 1, "optim.reference_videos", "be at least 1", videos, UsageError)


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run, as a factor of the peak rate.

    Attributes:
        epochs: length of the run.
        kind: `steps` multiplies by `gamma` at each epoch of `steps`; `cosine` falls to zero.
        steps: epochs at which the rate drops.
        gamma: factor of each drop.
        warmup_epochs: linear warm-up, multiplied onto the schedule.
        warmup_start: factor at which the warm-up begins.
    """

    epochs: int = 100
    kind: Literal["steps", "cosine"] = "steps"
    steps: tuple[float, ...] = (50, 75, 90)
    gamma: float = 0.1
    warmup_epochs: float = 10.0
    warmup_start: float = 0.01

    def __post_init__(self) -> None:
        check_choices(self, "schedule.", UsageError)
        for name, least in (("epochs", 1), ("warmup_epochs", 0)):
            value = getattr(self, name)
            require(value >= least, f"schedule.{name}", f"be at least {least}", value, UsageError)


def peak_rate(config: OptimConfig, videos: int) -> float:
    """Linear scaling rule: lr x videos / reference_videos (Goyal et al. 2017)."""
    return config.lr * videos / config.reference_videos


def schedule_factor(config: ScheduleConfig, epoch: float) -> float:
    """Factor of the peak rate at a position in epochs (a fraction within one)."""
    if config.kind == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * min(epoch / config.epochs, 1.0)))
    else:
        factor = config.gamma ** sum(epoch >= step for step in config.steps)
    if epoch < config.warmup_epochs:
        ramp = epoch / config.warmup_epochs
        factor *= config.warmup_start + (1 - config.warmup_start) * ramp
    return factor


def _groups(model: nn.Module, config: OptimConfig) -> Iterator[dict[str, Any]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.decay_norm_and_bias:
        yield {"params": parameters, "weight_decay": config.weight_decay}
        return
    # Vectors are biases, normalisation scales and shifts; everything else is a kernel.
    yield {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay}
    yield {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}


def build_optimizer(model: nn.Module, config: OptimConfig, *, fused: bool) -> torch.optim.SGD:
    """SGD over all trainable parameters; the rate is set at every step by `set_rate`."""
    optimizer = torch.optim.SGD(
        list(_groups(model, config)),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        fused=fused,
    )
    zero_momentum(optimizer)
    return optimizer


def zero_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give momentum buffers to the parameters that have none.

    The first step then does what it does without them, 0 + gradient. If that step is skipped for
    an overflow, fused SGD would otherwise keep buffers of uninitialised memory for the next one.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class WeightAverage:
    """Exponential average of weights and buffers, warmed up by min(decay, (1 + n) / (10 + n))."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` updates."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, current = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        blend = get_ema_multi_avg_fn(decay)
        blend([averaged[name] for name in floating], [current[name] for name in floating], None)
        for name in current.keys() - set(floating):  # BatchNorm's count of batches
            averaged[name].copy_(current[name])
