"""The torch half of a decoder on a CPU: decoded crops of any size in, one uint8 tensor out."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import torch

from pipelines.decode.graph import GraphSpec
from pipelines.read.thread_pool import ThreadPool

UNDER_WAY = 6  # batches that are neither in the queue nor done with: being made, or looked at


class Buffers:
    """Memory for batches, used again once nothing refers to the tensor that was made of it.

    A fresh buffer costs its page faults with every batch.
    """

    def __init__(self, kept: int = UNDER_WAY) -> None:
        self.kept = kept
        self._kept: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """An uninitialised uint8 tensor of `shape`."""
        size = math.prod(shape)
        free = [at for at, (_, user) in enumerate(self._kept) if user() is None]
        fitting = next((at for at in free if self._kept[at][0].size >= size), None)
        if fitting is not None:
            memory = self._kept.pop(fitting)[0]
        else:
            memory = np.empty(size, np.uint8)
            if len(self._kept) >= self.kept and free:
                self._kept.pop(free[0])
        # The tensor holds this view, and whatever is made of the tensor holds the tensor.
        view = memory[:size]
        if len(self._kept) < self.kept:
            self._kept.append((memory, weakref.ref(view)))
        return torch.from_numpy(view).view(shape)


class Finisher:
    """Cuts (where the graph has not), resizes and mirrors what a graph without a resize gives."""

    def __init__(
        self, spec: GraphSpec, frames: int, *, pinned: bool = False, prefetch: int = 2
    ) -> None:
        self.spec, self.frames = spec, frames
        # Pinned memory has torch's own cache.
        self._buffers = None if pinned else Buffers(prefetch + UNDER_WAY)
        self._pool = ThreadPool(spec.threads, "loader-resize")

    def clips(self, outputs: tuple[Any, ...]) -> torch.Tensor:
        """The outputs of the graph as uint8 (V, C, F, size, size, 3)."""
        crops = self._crops(outputs)
        flips = np.asarray(outputs[-1].as_tensor()) if self.spec.flip else None
        per_video = self.frames if self.spec.head == "image" else 1
        videos, size = len(outputs[0]) // per_video, self.spec.size
        clips = self._empty((videos, len(crops), self.frames, size, size, 3))

        def one(video: int, crop: int) -> None:
            first = video * per_video
            frames = self._frames(*crops[crop], range(first, first + per_video))
            resize(frames, clips[video, crop])
            if flips is not None and flips[first]:
                mirror(clips[video, crop])

        jobs = [(video, crop) for video in range(videos) for crop in range(len(crops))]
        self._pool.map(one, *zip(*jobs, strict=True))
        return clips

    def _crops(self, outputs: tuple[Any, ...]) -> list[tuple[Any, np.ndarray | None]]:
        """For each crop DALI's list of frames, and where they are whole the window in each."""
        if not self.spec.cut_later:
            return [(output, None) for output in outputs[: self.spec.crops]]
        given = [np.asarray(part.as_tensor()) for part in outputs[1 : 1 + 2 * self.spec.crops]]
        windows = zip(given[::2], given[1::2], strict=True)
        return [(outputs[0], np.hstack([low, low + shape])) for low, shape in windows]

    def _frames(self, frames: Any, windows: np.ndarray | None, rows: range) -> torch.Tensor:
        """One crop of one video: (F, h, w, 3)."""
        views = [torch.from_numpy(np.asarray(frames[row])) for row in rows]
        if windows is not None:
            y0, x0, y1, x1 = windows[rows[0]].tolist()
            views = [view[..., y0:y1, x0:x1, :] for view in views]
        return torch.stack(views) if self.spec.head == "image" else views[0]

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def _empty(self, shape: tuple[int, ...]) -> torch.Tensor:
        if self._buffers is None:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return self._buffers.take(shape)


def resize(frames: torch.Tensor, out: torch.Tensor) -> None:
    """Bilinear, without antialiasing: frames (F, h, w, 3) uint8 into out (F, H, W, 3)."""
    if frames.shape == out.shape:
        out.copy_(frames)
        return
    # What F.interpolate calls; `out`, which its stub does not know, saves a copy.
    kernel: Any = torch._C._nn.upsample_bilinear2d
    size, target = list(out.shape[1:3]), out.permute(0, 3, 1, 2)
    kernel(frames.permute(0, 3, 1, 2), size, False, None, None, out=target)


def mirror(frames: torch.Tensor) -> None:
    """Swap left and right in place: frames (F, H, W, 3)."""
    turned = frames.permute(0, 3, 1, 2)  # the layout for which torch has a fast flip
    turned.copy_(turned.flip(3))
