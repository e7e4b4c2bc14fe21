"""Scores of whole untrimmed videos: multi-scale temporal window integration (M-TWI).

Wang et al., "Temporal Segment Networks for Action Recognition in Videos", PAMI 2018: an untrimmed
video is scored in overlapping windows of several lengths. Of each length the K best window scores
of a class are averaged, K = max(15, a quarter of the windows), and the lengths are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsanet.engine.evaluation.protocol import LEAST, SHARE
from dsanet.engine.evaluation.scoring import Scorer, ScoreTable
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from pipelines.plan.windows import Window, window_frames
from pipelines.window_loader import WindowLoader


def integrate(scores: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The score float32 (classes,) of a video from those of its windows.

    scores: (W, classes); scales: (W,) the number of each window's length.
    """
    pooled = []
    for scale in np.unique(scales):
        ordered = np.sort(scores[scales == scale].astype(np.float64), axis=0)
        pooled.append(ordered[-max(LEAST, len(ordered) // SHARE) :].mean(axis=0))
    return np.mean(pooled, axis=0).astype(np.float32)


@dataclass
class FrameStore:
    """The decoded frames of one video that windows still need.

    numbers: (n,) ascending; clips: uint8 (C, n, H, W, 3).
    """

    numbers: np.ndarray
    clips: Tensor

    def add(self, numbers: np.ndarray, clips: Tensor) -> None:
        """Add later frames; clips: (C, n, H, W, 3)."""
        # A copy: the loader uses the memory of its batches again.
        self.clips = torch.cat([self.clips, clips], dim=1)
        self.numbers = np.concatenate([self.numbers, numbers])

    def inputs(self, frames: np.ndarray) -> Tensor:
        """The views (W, C, U, T, H, W, 3) of windows with the frames (W, U, T)."""
        at = torch.from_numpy(np.searchsorted(self.numbers, frames)).to(self.clips.device)
        return self.clips[:, at].transpose(0, 1)

    def keep(self, frames: np.ndarray) -> None:
        """Drop all frames but those in `frames`."""
        kept = np.isin(self.numbers, frames)
        self.clips = self.clips[:, torch.from_numpy(kept).to(self.clips.device)]
        self.numbers = self.numbers[kept]


class VideoWindows:
    """Scores the windows of one video as its frames arrive.

    batch: windows of a forward pass; the last pass repeats one, so that all have the same shape.
    """

    def __init__(
        self, scorer: Scorer, windows: list[Window], frames: np.ndarray, batch: int
    ) -> None:
        order = np.argsort(frames.max(axis=(1, 2)), kind="stable")
        self.scorer, self.batch = scorer, batch
        self.frames = frames[order]
        self.scales = np.array([windows[w].scale for w in order])
        self.last = self.frames.max(axis=(1, 2))
        self.scores: list[Tensor] = []  # on the device: nothing waits for them before the end
        self.done = 0  # windows
        self.store: FrameStore | None = None

    def add(self, numbers: np.ndarray, clips: Tensor) -> None:
        """Score the windows that are complete with these frames; clips: (C, n, H, W, 3)."""
        if self.store is None:
            self.store = FrameStore(numbers[:0], clips[:, :0])
        self.store.add(numbers, clips)
        ready = int(np.searchsorted(self.last, numbers[-1], side="right"))
        while self.done < ready:
            rows = np.minimum(self.done + np.arange(self.batch), ready - 1)
            count = min(self.batch, ready - self.done)
            views = self.store.inputs(self.frames[rows])
            self.scores.append(self.scorer.inputs(views).mean(1)[:count])
            self.done += count
        self.store.keep(self.frames[self.done :])

    def result(self) -> np.ndarray:
        """The score (classes,) of the video, once all frames are there."""
        assert self.done == len(self.frames), "frames of windows are missing"
        return integrate(torch.cat(self.scores).cpu().numpy(), self.scales)


def score_windows(
    scorer: Scorer,
    loader: WindowLoader,
    world: World,
    console: Console,
    ids: np.ndarray,
    *,
    classes: int,
    batch: int,
) -> Iterator[ScoreTable]:
    """Yield the scores of each video of this process; every process yields equally many tables.

    ids: id of each video of the loader. batch: windows of a forward pass.
    """
    split, plans = loader.split, loader.plans
    empty = np.zeros((1, 0), np.int32)
    current, remaining, yielded = -1, 0, 0
    video: VideoWindows | None = None
    reason = ""
    for loaded in loader:
        sample = int(loaded.ids[0] if loaded.valid[0] else loaded.replaced[0][0])
        if sample != current:
            windows = plans.windows(sample)
            video = VideoWindows(scorer, windows, window_frames(windows, plans.sampling), batch)
            blocks = plans.blocks(sample)
            current, remaining, reason = sample, len(blocks), ""
        number = len(blocks) - remaining
        remaining -= 1
        if not loaded.valid[0]:
            reason = reason or loaded.replaced[0][2]
        elif not reason and video is not None:
            different = int((np.diff(blocks[number]) > 0).sum()) + 1  # the rest is padding
            video.add(blocks[number][:different], loaded.clips[0, :, :different])
        if remaining:
            continue
        assert video is not None
        row = np.zeros(classes, np.float32) if reason else video.result()
        label = split.samples["label"][sample : sample + 1].astype(np.int64)
        missing = {int(ids[sample]): reason} if reason else {}
        table_id = np.array([-1 if reason else ids[sample]])
        yield ScoreTable(table_id, label, row[None], empty, missing)
        yielded += 1
        console.advance(world.size)
    rows = -(-len(split) // world.size)
    for _ in range(rows - yielded):
        blank = np.zeros((1, classes), np.float32)
        yield ScoreTable(np.array([-1]), np.array([-1]), blank, empty)
