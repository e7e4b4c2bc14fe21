"""What one step leaves for the records, and the records themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsanet.engine.batching import Layout
from dsanet.engine.report.stall_meter import PendingTimes, Times

# What the processes tell each other at each step, summed: the mean loss, videos recognised,
# samples replaced, and how many of them were asked to be requeued, to end, or are due to save.
STATS = ("loss", "correct", "replaced", "requeue", "end", "save")


@dataclass
class Pending:
    """A step whose results the device may still be computing."""

    step: int
    samples: int
    rate: float
    stats: Tensor
    norm: Tensor
    ready: torch.cuda.Event | None
    times: PendingTimes
    ids: np.ndarray


@dataclass
class Window:
    """Steps since the last record."""

    loss: float = 0.0
    correct: float = 0.0
    times: Times = field(default_factory=Times)


def train_record(step: Pending, window: Window, norm: float, layout: Layout) -> dict[str, Any]:
    """A record of the kind `train`: means over the window that ends with this step."""
    times = window.times
    done = step.samples + layout.videos
    speed = times.videos / times.wall
    return {
        "kind": "train",
        "samples": done,
        "step": step.step,
        "epoch": done / layout.samples_per_epoch,
        "epochs": layout.epochs,
        "loss": window.loss / times.steps,
        "top1": window.correct / times.videos,
        "lr": step.rate,
        "grad_norm": norm,
        "videos_per_second": speed,
        "step_ms": 1000 * times.wall / times.steps,
        "wait_ms": 1000 * times.stall / times.steps,
        "wait_share": times.share,
        "wait_stage": times.culprit,
        "wait_by_stage_ms": {k: 1000 * v / times.steps for k, v in times.stages.items()},
        "eta_s": (layout.total - done) / speed,
    }


def epoch_record(samples: int, epochs: int, times: Times) -> dict[str, Any]:
    """A record of the kind `epoch`: the stall meter's verdict."""
    return {
        "kind": "epoch",
        "samples": samples,
        "epoch": epochs,
        "seconds": times.wall,
        "start_seconds": times.start,
        "wait_share": times.share,
        "verdict": times.verdict(),
    }
