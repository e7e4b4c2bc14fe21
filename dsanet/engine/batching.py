"""Splitting the videos of a run into steps, processes and forward passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dsanet.engine.config import TrainConfig
from dsanet.engine.errors import UsageError
from dsanet.engine.optim import peak_rate

# Fewer snippets than this make BatchNorm's statistics too noisy to train on.
FEW_SNIPPETS = 16


@dataclass(frozen=True)
class Layout:
    """How a run is split into steps.

    Attributes:
        videos: global batch; with `augment.repeats` it counts the views of videos.
        processes: world size.
        micro: videos per forward pass and process.
        accumulation: forward passes per step and process.
        steps_per_epoch: optimiser steps; the rest of an epoch, less than a batch, is dropped.
        epochs: length of the run.
    """

    videos: int
    processes: int
    micro: int
    accumulation: int
    steps_per_epoch: int
    epochs: int

    @property
    def samples_per_epoch(self) -> int:
        """Videos that are trained on in an epoch."""
        return self.videos * self.steps_per_epoch

    @property
    def total(self) -> int:
        """Videos of the whole run."""
        return self.samples_per_epoch * self.epochs


def _largest_divisor(number: int, bound: int) -> int:
    return next(d for d in range(min(number, bound), 0, -1) if number % d == 0)


def plan_steps(config: TrainConfig, processes: int, videos_in_split: int) -> Layout:
    """Split the global batch over processes and forward passes.

    Raises:
        UsageError: when the sizes do not divide or the split is smaller than one batch.
    """
    videos = config.batch.videos
    repeats = config.augment.repeats
    if videos % (processes * repeats):
        raise UsageError(
            f"batch.videos must be a multiple of the {processes} processes x augment.repeats "
            f"{repeats}, got {videos}; change it, or start another number of processes"
        )
    views = videos_in_split * repeats
    if views < videos:
        raise UsageError(
            f"split {config.split} of {config.data} has {videos_in_split} videos, fewer than one "
            f"batch of {videos}; lower --batch.videos"
        )
    share = videos // processes
    micro = repeats * _largest_divisor(share // repeats, max(config.batch.per_gpu // repeats, 1))
    epochs = min(config.schedule.epochs, config.epoch_limit or config.schedule.epochs)
    return Layout(videos, processes, micro, share // micro, views // videos, epochs)


def every_nth(views: Tensor, start: int, step: int, repeats: int) -> Tensor:
    """Select the views of videos start, start + step, ... from views (B, ...), contiguous.

    Each video has `repeats` views in a row.
    """
    return views.unflatten(0, (-1, repeats))[start::step].flatten(0, 1).contiguous()


def interleaved(ids: list[np.ndarray], repeats: int) -> list[int]:
    """Merge the sample ids (B,) of each process, by rank, in the order of the epoch."""
    videos = [part.reshape(-1, repeats) for part in ids]
    return np.stack(videos, axis=1).reshape(-1).tolist()


def _count(number: float, thing: str, plural: str = "s") -> str:
    return f"{number:g} {thing}{'' if number == 1 else plural}"


def describe(config: TrainConfig, layout: Layout) -> list[str]:
    """Lines about batch, learning rate and length of the run, with a warning for BatchNorm."""
    optim, snippets = config.optim, layout.micro * config.sampling.segments
    rate = peak_rate(optim, layout.videos)
    groups = f"{_count(layout.processes, 'process', 'es')} x {_count(layout.micro, 'video')}"
    if layout.accumulation > 1:
        groups += f" x {layout.accumulation} passes, accumulated"
    lines = [
        f"batch: {layout.videos} videos a step = {groups}; BatchNorm sees {snippets} snippets",
        f"learning rate: {optim.lr:g} x {layout.videos}/{optim.reference_videos} videos = {rate:g} "
        f"(linear scaling); {config.schedule.kind}, "
        f"warm-up {_count(config.schedule.warmup_epochs, 'epoch')}",
        f"run: {_count(layout.epochs, 'epoch')} of {_count(layout.steps_per_epoch, 'step')}",
    ]
    if snippets < FEW_SNIPPETS and not config.runtime.sync_batchnorm:
        lines.append(
            f"WARNING: BatchNorm over {snippets} snippets is noisy; raise --batch.per_gpu, start "
            "fewer processes, or, on GPUs, add --runtime.sync_batchnorm true"
        )
    return lines
