"""Cross entropy on the mean logits, with optional label smoothing, mixup and cutmix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dsanet.engine.errors import UsageError
from dsanet.errors import require

# Probability of cutmix where mixup is on too.
CUT_PROBABILITY = 0.5


@dataclass(frozen=True)
class LossConfig:
    """Loss: cross entropy, with optional label smoothing, mixup and cutmix.

    Attributes:
        label_smoothing: share of the target that is spread evenly over all classes.
        mixup: blend pairs of videos, with shares from Beta(mixup, mixup); 0: no mixup.
        cutmix: paste a box of one video into another, with areas from Beta(cutmix, cutmix); 0: no
            cutmix. If mixup is on too, each forward pass uses one of the two, with probability 1/2.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        share = self.label_smoothing
        require(0 <= share < 1, "loss.label_smoothing", "be in [0, 1)", share, UsageError)
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            require(value >= 0, f"loss.{name}", "be at least 0", value, UsageError)


@dataclass(frozen=True)
class Targets:
    """Target classes of a batch.

    Attributes:
        first: classes int64 (B,).
        second: classes int64 (B,) of the videos that were mixed in, or None without mixing.
        share: weight of `first`, float32 (B,); that of `second` is 1 - share.
    """

    first: Tensor
    second: Tensor | None = None
    share: Tensor | None = None


def mix(
    clips: Tensor, labels: Tensor, config: LossConfig, rng: np.random.Generator
) -> tuple[Tensor, Targets]:
    """Mix each video with the one at the opposite position of the batch, as the settings say.

    uint8 (B, U, T, H, W, 3) in and out, on any device.
    """
    cut = config.cutmix > 0
    if cut and config.mixup > 0:
        cut = bool(rng.random() < CUT_PROBABILITY)
    if cut:
        return cutmix(clips, labels, config.cutmix, rng)
    if config.mixup > 0:
        return mixup(clips, labels, config.mixup, rng)
    return clips, Targets(labels)


def mixup(
    clips: Tensor, labels: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Targets]:
    """Blend pairs (Zhang et al. 2018) with one share for the batch, drawn from Beta(alpha, alpha).

    uint8 (B, U, T, H, W, 3) in and out: a blend is rounded to bytes.
    """
    share = float(rng.beta(alpha, alpha))
    blended = torch.lerp(clips.flip(0).float(), clips.float(), share)
    shares = torch.full(labels.shape, share, device=labels.device)
    return blended.round_().to(torch.uint8), Targets(labels, labels.flip(0), shares)


def cutmix(
    clips: Tensor, labels: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Targets]:
    """Paste a box of each video's opposite into it (Yun et al. 2019).

    uint8 (B, U, T, H, W, 3) in and out. Each pair has its own box, the same in all its frames: the
    area 1 - Beta(alpha, alpha) of the picture around a uniform centre, cut off at the edges. The
    share of `first` is the rest of the picture.
    """
    B, height, width = len(clips), clips.shape[3], clips.shape[4]
    boxes = cut_boxes((B + 1) // 2, height, width, alpha, rng)
    boxes = np.concatenate([boxes, boxes[: B // 2][::-1]])  # of video i and of its opposite
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share = torch.from_numpy((1 - area / (height * width)).astype(np.float32))
    top, left, bottom, right = (
        torch.from_numpy(boxes).to(clips.device, non_blocking=True).T[..., None]
    )
    y, x = (torch.arange(side, device=clips.device) for side in (height, width))
    rows, columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
    inside = (rows[:, :, None] & columns[:, None, :])[:, None, None, :, :, None]
    pasted = torch.where(inside, clips.flip(0), clips)
    return pasted, Targets(labels, labels.flip(0), share.to(labels.device, non_blocking=True))


def cut_boxes(
    pairs: int, height: int, width: int, alpha: float, rng: np.random.Generator
) -> np.ndarray:
    """int64 (pairs, 4) of top, left, bottom, right in pixels, bottom and right excluded."""
    sides = np.sqrt(1 - rng.beta(alpha, alpha, pairs))[:, None] * (height, width)
    centres = rng.random((pairs, 2)) * (height, width)
    ends = [(centres + sign * sides / 2).round() for sign in (-1, 1)]
    return np.concatenate(ends, 1).clip(0, [height, width] * 2).astype(np.int64)


def cross_entropy(logits: Tensor, targets: Targets, smoothing: float) -> Tensor:
    """Mean cross entropy of float32 logits (B, classes)."""
    if targets.second is None or targets.share is None:
        return F.cross_entropy(logits, targets.first, label_smoothing=smoothing)
    first, second = (
        F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        for labels in (targets.first, targets.second)
    )
    return torch.lerp(second, first, targets.share).mean()


def correct(logits: Tensor, targets: Targets) -> Tensor:
    """Number of videos whose highest logit is at the target, of two at that of the larger share."""
    labels = targets.first
    if targets.second is not None and targets.share is not None:
        labels = torch.where(targets.share >= 0.5, targets.first, targets.second)
    return (logits.argmax(1) == labels).sum()
