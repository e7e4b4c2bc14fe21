"""Crops, resizes and flips decoded frames with torch, where the DALI graph does not (on a CPU)."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import torch

from pipelines.decode.dali_errors import classify
from pipelines.decode.graph import GraphSpec
from pipelines.read.thread_pool import ThreadPool

IN_FLIGHT = 6  # batches outside the queue: being made, or in use by the consumer


class BufferPool:
    """Memory for batches, reused once nothing refers to the tensor made of it.

    Fresh memory would cost page faults in every batch. limit: most buffers that are kept.
    """

    def __init__(self, limit: int = IN_FLIGHT) -> None:
        self.limit = limit
        self._buffers: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []

    def __len__(self) -> int:
        """Buffers kept, in use or free."""
        return len(self._buffers)

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """An uninitialised uint8 tensor of `shape`."""
        size = math.prod(shape)
        free = [i for i, (_, view) in enumerate(self._buffers) if view() is None]
        fitting = next((i for i in free if self._buffers[i][0].size >= size), None)
        if fitting is not None:
            memory = self._buffers.pop(fitting)[0]
        else:
            memory = np.empty(size, np.uint8)
            if len(self._buffers) >= self.limit and free:
                self._buffers.pop(free[0])
        # The tensor refers to this view, and every tensor or array made of it refers to the tensor.
        view = memory[:size]
        if len(self._buffers) < self.limit:
            self._buffers.append((memory, weakref.ref(view)))
        return torch.from_numpy(view).view(shape)


class CpuResizer:
    """Turns the outputs of a graph without a resize into clips, on a pool of threads.

    frames: F of a video; pinned: clips in page-locked memory; prefetch: batches that the caller
    keeps ready.
    """

    def __init__(
        self, spec: GraphSpec, frames: int, *, pinned: bool = False, prefetch: int = 2
    ) -> None:
        self.spec, self.frames = spec, frames
        # torch has its own cache of pinned memory.
        self._buffer_pool = None if pinned else BufferPool(prefetch + IN_FLIGHT)
        self._pool = ThreadPool(spec.threads, "loader-resize")

    def clips(self, outputs: tuple[Any, ...]) -> torch.Tensor:
        """The outputs of the graph as uint8 clips (V, C, F, size, size, 3).

        Raises:
            DecodeError: where frames do not have the size for which their crops were planned.
            LoaderError: for too little memory.
        """
        crops = self._crops(outputs)
        flips = np.asarray(outputs[-1].as_tensor()) if self.spec.flip else None
        per_video = self.frames if self.spec.input == "jpeg" else 1
        videos, size = len(outputs[0]) // per_video, self.spec.size
        clips = self._empty((videos, len(crops), self.frames, size, size, 3))

        def resize_crop(video: int, crop: int) -> None:
            first = video * per_video
            try:
                frames = self._frames(*crops[crop], range(first, first + per_video))
                resize(frames, clips[video, crop])
            except (RuntimeError, ValueError, IndexError) as error:  # a crop outside of its frame
                raise classify(str(error)) from None
            if flips is not None and flips[first]:
                flip(clips[video, crop])

        jobs = [(video, crop) for video in range(videos) for crop in range(len(crops))]
        self._pool.map(resize_crop, *zip(*jobs, strict=True))
        return clips

    def _crops(self, outputs: tuple[Any, ...]) -> list[tuple[Any, np.ndarray | None]]:
        """For each crop, DALI's list of frames and the box in each whole frame, None for crops."""
        if not self.spec.outputs_whole_frames:
            return [(output, None) for output in outputs[: self.spec.crops]]
        inputs = [np.asarray(part.as_tensor()) for part in outputs[1 : 1 + 2 * self.spec.crops]]
        windows = zip(inputs[::2], inputs[1::2], strict=True)
        return [(outputs[0], np.hstack([low, low + shape])) for low, shape in windows]

    def _frames(self, frames: Any, windows: np.ndarray | None, rows: range) -> torch.Tensor:
        """One crop (F, h, w, 3) of one video."""
        views = [torch.from_numpy(np.asarray(frames[row])) for row in rows]
        if windows is not None:
            y0, x0, y1, x1 = windows[rows[0]].tolist()
            height, width = views[0].shape[-3:-1]
            if min(y0, x0) < 0 or y1 > height or x1 > width:  # torch would cut the crop off
                raise ValueError(
                    f"frames of {width}x{height} pixels are smaller than the index has"
                )
            views = [view[..., y0:y1, x0:x1, :] for view in views]
        return torch.stack(views) if self.spec.input == "jpeg" else views[0]

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def _empty(self, shape: tuple[int, ...]) -> torch.Tensor:
        if self._buffer_pool is None:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return self._buffer_pool.take(shape)


def resize(frames: torch.Tensor, out: torch.Tensor) -> None:
    """Resize uint8 frames (F, h, w, 3) into `out` (F, H, W, 3): bilinear, without antialiasing."""
    if frames.shape == out.shape:
        out.copy_(frames)
        return
    # The kernel that F.interpolate calls; its `out`, missing from the stubs, saves a copy.
    kernel: Any = torch._C._nn.upsample_bilinear2d
    size, target = list(out.shape[1:3]), out.permute(0, 3, 1, 2)
    kernel(frames.permute(0, 3, 1, 2), size, False, None, None, out=target)


def flip(frames: torch.Tensor) -> None:
    """Flip frames (F, H, W, 3) horizontally, in place."""
    channels_first = frames.permute(0, 3, 1, 2)  # torch flips this view faster
    channels_first.copy_(channels_first.flip(3))
