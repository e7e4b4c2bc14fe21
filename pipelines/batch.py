"""The batches that a loader yields."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Batch:
    """One batch of B videos.

    clips: uint8, contiguous, (B, U, T, H, W, 3) in training and validation, (B, C, K, T, H, W, 3)
    in testing (C crops, K clips), on the loader's device. labels: int64 (B,) on the CPU.
    ids: int64 (B,), sample in the split, -1 for a padded slot. valid: bool (B,), False for padded
    slots and, in evaluation, for unreadable videos.
    wait: seconds by stage: `plan`, `read` (CRC included), `starved` (decoding had nothing to do),
    `decode`, `augment` (the resize outside DALI), `handover` (to the device) and `wait` (the
    consumer waited for the batch). replaced: (id, replacement id or -1, reason) of each broken
    video. state: the reader's checkpoint after this batch (webdataset reader only).

    On a GPU, launch the work on a batch on the current stream before you ask for the batch after
    the next one: its memory is used again once that work has ended. For work that is launched later
    or on another stream, copy the clips first (`batch.clips.clone()`).
    """

    clips: torch.Tensor
    labels: torch.Tensor
    ids: np.ndarray
    valid: np.ndarray
    wait: dict[str, float] = field(default_factory=dict)
    replaced: list[tuple[int, int, str]] = field(default_factory=list)
    state: bytes | None = None
