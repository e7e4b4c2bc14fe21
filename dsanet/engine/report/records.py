"""The records of metrics.jsonl, and the statistics of steps that they are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsanet.engine.batching import Layout
from dsanet.engine.report.stall_meter import PendingTimes, Times

# Statistics of a step that are summed over processes: mean loss, correctly classified videos,
# replaced samples, and the number of processes that want to be requeued, to end, or to save. Where
# there are several processes, one more element for each is its wait for data in the step before.
STATS = ("loss", "correct", "replaced", "requeue", "end", "save")


@dataclass
class PendingStep:
    """A step whose results the device may still be computing.

    Attributes:
        step: number of the step, from 1.
        samples: position of the run before the step, in videos.
        rate: learning rate.
        stats: float32 (len(STATS) + other elements,), summed over processes; see `STATS`.
        norm: gradient norm before clipping.
        ready: passed once `stats` and `norm` are on the CPU; None without a GPU.
        ids: sample ids of this process, int64 (views,).
    """

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
    """Sums over the steps since the last record."""

    loss: float = 0.0
    correct: float = 0.0
    times: Times = field(default_factory=Times)


def train_record(step: PendingStep, window: Window, norm: float, layout: Layout) -> dict[str, Any]:
    """A record of kind `train`: means over the window of steps that ends with this one."""
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
        "wait_share_max": times.worst[1],
        "wait_rank": times.worst[0],
        "wait_stage": times.slowest_stage,
        "wait_by_stage_ms": {k: 1000 * v / times.steps for k, v in times.stages.items()},
        "eta_s": (layout.total - done) / speed,
    }


def epoch_record(samples: int, epochs: int, times: Times) -> dict[str, Any]:
    """A record of kind `epoch`: how long it took and how much of that was waiting for data.

    samples: position of the run, in videos; epochs: completed epochs; times: of this epoch.
    """
    return {
        "kind": "epoch",
        "samples": samples,
        "epoch": epochs,
        "seconds": times.wall,
        "start_seconds": times.start,
        "wait_share": times.share,
        "wait_share_max": times.worst[1],
        "wait_rank": times.worst[0],
        "verdict": times.verdict(),
    }
