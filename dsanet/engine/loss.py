"""Cross entropy on the mean logits, with optional label smoothing and mixup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dsanet.engine.errors import require


@dataclass(frozen=True)
class LossConfig:
    """Cross entropy and what softens it.

    Attributes:
        label_smoothing: share of the target spread over all classes.
        mixup: alpha of the Beta distribution that mixes pairs of videos; 0: none.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        met = 0 <= self.label_smoothing < 1
        require(met, f"--loss.label_smoothing {self.label_smoothing} must lie in [0, 1)")
        require(self.mixup >= 0, f"--loss.mixup {self.mixup} must be 0 or more")


@dataclass(frozen=True)
class Targets:
    """What a batch should be recognised as: `share` of `first`, the rest of `second`."""

    first: Tensor
    second: Tensor
    share: float


def mix(
    clips: Tensor, labels: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Targets]:
    """Mixup (Zhang et al. 2018): each video blended with the one opposite in the batch.

    uint8 (B, U, T, H, W, 3) in and out; one share for the batch, drawn from Beta(alpha, alpha).
    """
    if alpha <= 0:
        return clips, Targets(labels, labels, 1.0)
    share = float(rng.beta(alpha, alpha))
    blended = torch.lerp(clips.flip(0).float(), clips.float(), share)
    return blended.round_().to(torch.uint8), Targets(labels, labels.flip(0), share)


def cross_entropy(logits: Tensor, targets: Targets, smoothing: float) -> Tensor:
    """Mean cross entropy of float32 logits (B, classes)."""
    loss = F.cross_entropy(logits, targets.first, label_smoothing=smoothing)
    if targets.share == 1.0:
        return loss
    other = F.cross_entropy(logits, targets.second, label_smoothing=smoothing)
    return targets.share * loss + (1 - targets.share) * other


def correct(logits: Tensor, targets: Targets) -> Tensor:
    """Number of videos whose best class is the (larger) target."""
    labels = targets.first if targets.share >= 0.5 else targets.second
    return (logits.argmax(1) == labels).sum()
