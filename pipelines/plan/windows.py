"""Windows of several lengths over a whole video, and the blocks of frames in which it is decoded.

TSN's multi-scale temporal window integration (Wang et al., PAMI 2018) scores an untrimmed video in
windows of 1, 2, 4, 8 and 16 seconds that overlap by a fifth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.plan.crops import eval_boxes
from pipelines.plan.epochs import EpochPlans
from pipelines.plan.planner import BatchPlan
from pipelines.plan.sampling import SamplingConfig, val_frames
from pipelines.rank import Rank
from shards import Split

SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
BLOCK = 64  # frames that are decoded at once


@dataclass(frozen=True)
class Window:
    """A window of a video: frames `start` to `stop` - 1, of the length SECONDS[scale]."""

    scale: int
    start: int
    stop: int


def windows_of(num_frames: int, fps: float, seconds: tuple[float, ...] = SECONDS) -> list[Window]:
    """All windows of a video of `num_frames` frames.

    Windows of one length begin every 4/5 of it, rounded up to whole frames; the last one ends with
    the video. A video shorter than a window is one window.
    """
    windows = []
    for scale, length in enumerate(seconds):
        width = min(num_frames, max(1, round(length * fps)))
        step = -(-4 * width // 5)
        count = 1 + -(-(num_frames - width) // step)
        starts = np.minimum(np.arange(count) * step, num_frames - width)
        windows += [Window(scale, int(start), int(start) + width) for start in starts]
    return windows


def window_frames(windows: list[Window], sampling: SamplingConfig) -> np.ndarray:
    """Frame numbers (W, U, T) of the inputs: in each window the U snippets of validation."""
    inside = {w.stop - w.start: val_frames(w.stop - w.start, sampling) for w in windows}
    return np.stack([w.start + inside[w.stop - w.start] for w in windows])


def blocks_of(frames: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """The different frame numbers among `frames`, ascending, in rows (blocks, block).

    The last row repeats its last frame.
    """
    different = np.unique(frames)
    rows = -(-len(different) // block)
    return np.pad(different, (0, rows * block - len(different)), mode="edge").reshape(rows, block)


class WindowPlans(EpochPlans):
    """Evaluation in windows: all frames of a video's windows, block by block, each frame once.

    A batch has one row, a block of one video; a process has the videos rank, rank + world, ...
    """

    def __init__(
        self,
        split: Split,
        sampling: SamplingConfig,
        rank: Rank,
        *,
        crops: int,
        crop_size: int,
        resize_short: int,
    ) -> None:
        self.split, self.sampling = split, sampling
        self.crops, self.crop_size, self.resize_short = crops, crop_size, resize_short
        self.own = np.arange(rank.rank, len(split), rank.world)

    def windows(self, video: int) -> list[Window]:
        """The windows of a video of the split."""
        row = self.split.samples[video]
        return windows_of(int(row["num_frames"]), float(row["fps"]))

    def blocks(self, video: int) -> np.ndarray:
        """The frames of a video in rows (blocks, BLOCK)."""
        return blocks_of(window_frames(self.windows(video), self.sampling))

    def __len__(self) -> int:
        """Blocks of all videos of this process."""
        return sum(len(self.blocks(video)) for video in self.own.tolist())

    def batches(self, epoch: int = 0, first: int = 0) -> Iterator[BatchPlan]:
        """See EpochPlans; blocks of a video follow each other, in order."""
        number = 0
        for video in self.own.tolist():
            for block in self.blocks(video):
                if number >= first:
                    yield self._plan(video, block)
                number += 1

    def _plan(self, video: int, frames: np.ndarray) -> BatchPlan:
        row = self.split.samples[video]
        size = int(row["height"]), int(row["width"])
        return BatchPlan(
            ids=np.array([video]),
            labels=np.array([int(row["label"])]),
            frames=frames[None],
            boxes=eval_boxes(*size, self.crops, self.crop_size, self.resize_short)[None],
            flips=np.zeros(1, bool),
            colours=np.ones((1, 4), np.float32),
            repeats=np.zeros(1, np.int64),
        )
