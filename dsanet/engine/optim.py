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
    """Optimiser: SGD with momentum.

    Attributes:
        lr: peak learning rate for a global batch of `reference_videos`.
        reference_videos: global batch that `lr` is for; the rate scales linearly with
            `batch.videos` / `reference_videos`.
        momentum: momentum of SGD.
        nesterov: use Nesterov momentum, as the authors' code does.
        weight_decay: factor of the L2 penalty.
        decay_norm_and_bias: apply the penalty also to normalisation layers and biases, as the
            authors' code does.
        clip_norm: limit of the gradient's total norm; 0: no clipping.
        ema: decay of an exponential average of the weights, which validation and evaluation use
            instead of the weights; 0: no average.
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
    """Schedule of the learning rate, as a factor of the peak rate.

    Attributes:
        epochs: length of the run.
        kind: `steps` multiplies the rate by `gamma` at each epoch in `steps`; `cosine` lowers it to
            zero.
        steps: epochs at which the rate drops.
        gamma: factor of each drop.
        warmup_epochs: length of a linear warm-up, by which the schedule is multiplied.
        warmup_start: factor at the start of the warm-up.
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
    """Factor of the peak rate at a position in epochs, which may be a fraction."""
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
    # Parameters of one dimension are biases and those of normalisation layers.
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
    """Create momentum buffers of zeros for the parameters that have none.

    The result of the first step is the same. But if that step is skipped after an overflow, fused
    SGD keeps the buffers it has allocated, with uninitialised memory in them.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class WeightAverage:
    """Exponential average of weights and buffers, warmed up by min(decay, (1 + n) / (10 + n))."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the weights after `step` updates to the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, current = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        blend = get_ema_multi_avg_fn(decay)
        blend([averaged[name] for name in floating], [current[name] for name in floating], None)
        for name in current.keys() - set(floating):  # BatchNorm's count of batches
            averaged[name].copy_(current[name])
