"""Frame numbers of a video's snippets: pure arithmetic on random draws that the caller passes in.

N is the number of frames of a video, U snippets of T frames at stride S, W the window of
consecutive frames that one snippet spans (paper, section 4.2: 32 or 64 frames, stride 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsanet.errors import check_choices, require
from pipelines.errors import LoaderUsageError

SamplingMode = Literal[
    "segments", "release", "dense", "uniform", "spread", "mmaction2", "pyslowfast"
]


@dataclass(frozen=True)
class SamplingConfig:
    """Which U x T frames of a video make up one input of the network.

    Attributes:
        segments: U, snippets of a video.
        frames: T, frames of a snippet.
        stride: frames from one sampled frame to the next.
        window: consecutive frames that a snippet spans; null: frames * stride.
        mode: `segments` takes a random window of each of U equal segments, as the paper does;
            `release` follows the released code; `spread` takes T frames evenly over each segment
            (Something-Something); `dense` is TSM's sampling and `uniform` TSN's; `mmaction2` is
            that of mmaction2 1.x and `pyslowfast` that of PySlowFast, for networks on clips.
    """

    segments: int = 4
    frames: int = 4
    stride: int = 8
    window: int | None = None
    mode: SamplingMode = "segments"

    def __post_init__(self) -> None:
        check_choices(self, "sampling.", LoaderUsageError)
        for name in ("segments", "frames", "stride"):
            value = getattr(self, name)
            require(value >= 1, f"sampling.{name}", "be at least 1", value, LoaderUsageError)
        least = (self.frames - 1) * self.stride + 1
        must = f"be at least {least} to hold {self.frames} frames at stride {self.stride}"
        require(self.span >= least, "sampling.window", must, self.window, LoaderUsageError)

    @property
    def span(self) -> int:
        """W, the consecutive frames that one snippet spans."""
        return self.frames * self.stride if self.window is None else self.window

    def draws(self) -> int:
        """Number of random draws that `train_frames` needs for one video."""
        return self.segments * (self.frames if self.mode == "uniform" else 1)


def train_frames(num_frames: int, config: SamplingConfig, draws: np.ndarray) -> np.ndarray:
    """Frame numbers (U, T) of a random training input; draws: config.draws() or more in [0, 1)."""
    x = np.asarray(draws, np.float64)[: config.draws()]
    if config.mode == "release":
        return _windows(_release_train_starts(num_frames, config, x), num_frames, config)
    if config.mode == "dense":
        return _looped(np.sort(_below(x, max(1, num_frames - config.span + 1))), num_frames, config)
    if config.mode == "uniform":
        return _uniform(num_frames, x[None]).reshape(config.segments, config.frames)
    if config.mode == "mmaction2":
        return _looped(_mmaction2_train_starts(num_frames, config, x), num_frames, config)
    if config.mode == "pyslowfast":
        return _pyslowfast(np.sort(x) * max(0, num_frames - config.span), num_frames, config)
    return _segments(num_frames, config, x)


def val_frames(num_frames: int, config: SamplingConfig) -> np.ndarray:
    """Frame numbers (U, T) of the validation input: centred snippets."""
    if config.mode in ("release", "dense", "mmaction2"):
        return test_frames(num_frames, config.segments, config)
    if config.mode == "pyslowfast":  # which validates on a random clip; here they are centred
        U = config.segments
        return train_frames(num_frames, config, (np.arange(U) + 0.5) / U)
    return train_frames(num_frames, config, np.full(config.draws(), 0.5))


def test_frames(num_frames: int, clips: int, config: SamplingConfig) -> np.ndarray:
    """Frame numbers (K, T) of K clips spaced uniformly over the whole video.

    In the modes `segments` and `spread` a clip spans as many frames as a training snippet of this
    video. In `uniform` the clips are K / U interleaved passes over the video. Clips g, g + G,
    g + 2G, ... (G = K / U) form one input of U snippets, which therefore spans the video.

    LoaderUsageError for a number of clips that does not fit.
    """
    require(clips >= 1, "clips", "be at least 1", clips, LoaderUsageError)
    if config.mode == "release":
        tick = (num_frames - config.span + 1) / clips
        centres = np.floor(tick / 2 + tick * np.arange(clips)).astype(np.int64)
        return _windows(centres if tick > 0 else centres * 0, num_frames, config)
    if config.mode == "dense":
        room = max(0, num_frames - config.span)
        # One clip is centred; several span the video from first to last frame, as in TSM.
        starts = np.linspace(0, room, clips) if clips > 1 else np.array([room / 2])
        return _looped(starts.astype(np.int64), num_frames, config)
    if config.mode == "uniform":
        return _uniform_passes(num_frames, clips, config)
    if config.mode == "mmaction2":
        return _looped(_mmaction2_test_starts(num_frames, clips, config), num_frames, config)
    if config.mode == "pyslowfast":
        starts = max(0, num_frames - config.span) * np.arange(clips) / clips
        return _pyslowfast(starts, num_frames, config)
    return _uniform_clips(num_frames, clips, config)


def twice_frames(num_frames: int, config: SamplingConfig) -> np.ndarray:
    """Frame numbers (2 U, T) of two passes: at the centres and at the starts of the segments.

    This is the test of TSM and its followers on Something-Something ("2 clips"). Clips 0, 2, 4, ...
    are the pass at the centres, clips 1, 3, 5, ... that at the starts.

    LoaderUsageError for a mode without segments.
    """
    known = ("segments", "spread", "uniform", "release")
    must = f"be one of {', '.join(known)} for two passes over a video"
    require(config.mode in known, "sampling.mode", must, config.mode, LoaderUsageError)
    if config.mode == "release":
        tick = max(0.0, (num_frames - config.span + 1) / config.segments)
        starts = np.floor(tick * np.arange(config.segments)).astype(np.int64)
        passes = [val_frames(num_frames, config), _windows(starts, num_frames, config)]
    else:
        passes = [
            train_frames(num_frames, config, np.full(config.draws(), phase)) for phase in (0.5, 0.0)
        ]
    return np.stack(passes, axis=1).reshape(2 * config.segments, config.frames)


def _below(x: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Scale draws in [0, 1) to integers in [0, count)."""
    return np.floor(x * count).astype(np.int64)


def _windows(starts: np.ndarray, num_frames: int, config: SamplingConfig) -> np.ndarray:
    """Frames start + t * S, clamped to the last frame of the video."""
    frames = starts[:, None] + np.arange(config.frames) * config.stride
    return np.clip(frames, 0, num_frames - 1)


def _segments(num_frames: int, config: SamplingConfig, x: np.ndarray) -> np.ndarray:
    """One window at a random position in each of U equal segments.

    In a segment shorter than the window, T frames are spread evenly over the segment. The snippets
    stay apart and in order, whereas the released code starts all of them at frame 0.
    """
    U, T, W = config.segments, config.frames, config.span
    bounds = num_frames * np.arange(U + 1) // U
    low, lengths = bounds[:-1], np.diff(bounds)
    room = lengths - W + 1
    if config.mode == "spread" or room.min() < 1:
        return _evenly(low, lengths, x, num_frames, T)
    # In a window wider than T strides the frames are centred.
    margin = (W - T * config.stride) // 2 if T * config.stride < W else 0
    return _windows(low + _below(x, room) + margin, num_frames, config)


def _evenly(
    starts: np.ndarray, lengths: np.ndarray, x: np.ndarray, num_frames: int, frames: int
) -> np.ndarray:
    """T frames at a step of length / T from each start, shifted by x steps."""
    steps = (np.arange(frames) + x[:, None]) * (lengths[:, None] / frames)
    return np.clip(np.floor(starts[:, None] + steps).astype(np.int64), 0, num_frames - 1)


def _uniform(num_frames: int, x: np.ndarray) -> np.ndarray:
    """TSN's sampling: one frame from each of as many equal parts as x (rows, parts) has columns."""
    parts = np.arange(x.shape[1])
    return np.clip(
        np.floor((parts + x) * num_frames / len(parts)).astype(np.int64), 0, num_frames - 1
    )


def _uniform_passes(num_frames: int, clips: int, config: SamplingConfig) -> np.ndarray:
    """K clips (K, T): clip u * G + g is pass g of G over the u-th of U parts of the video."""
    U, T = config.segments, config.frames
    must = f"be a multiple of {U} (sampling.segments) with sampling.mode uniform"
    require(clips % U == 0, "clips", must, clips, LoaderUsageError)
    G = clips // U
    phases = np.repeat(((np.arange(G) + 0.5) / G)[:, None], U * T, axis=1)
    passes = _uniform(num_frames, phases).reshape(G, U, T)
    return passes.transpose(1, 0, 2).reshape(clips, T)


def _looped(starts: np.ndarray, num_frames: int, config: SamplingConfig) -> np.ndarray:
    """Frames start + t * S modulo N, as TSM's dense sampling and mmaction2 have them."""
    return (starts[:, None] + np.arange(config.frames) * config.stride) % num_frames


def _mmaction2_train_starts(num_frames: int, config: SamplingConfig, x: np.ndarray) -> np.ndarray:
    """Starts of the U clips, drawn as by mmaction2's SampleFrames."""
    U, L = config.segments, config.span
    # Where a clip just fits, its U starts are spread over the few that there are.
    if (num_frames - L + 1) // U == 0 and num_frames <= max(U, L):
        return np.round(np.arange(U) * ((num_frames - L + 1) / U)).astype(np.int64)
    return _release_train_starts(num_frames, config, x)


def _mmaction2_test_starts(num_frames: int, clips: int, config: SamplingConfig) -> np.ndarray:
    """Starts of the K test clips of mmaction2 1.x: from the first frame to the last."""
    room = max(0, num_frames - (config.frames - 1) * config.stride - 1)
    if clips == 1:
        return np.array([room // 2])
    return np.round(np.arange(clips) * (room / (clips - 1))).astype(np.int64)


def _pyslowfast(starts: np.ndarray, num_frames: int, config: SamplingConfig) -> np.ndarray:
    """T frames from the first to the last of W frames at each start, as PySlowFast has them.

    Starts need not be whole. The step is (W - 1) / (T - 1), thus 9 and not 8 for 8 frames of 64.
    Rounded as torch.linspace rounds in float32: once, and from both ends to the middle.
    """
    T, t = config.frames, np.arange(config.frames)
    first = starts[:, None].astype(np.float32)
    last = (starts[:, None] + (config.span - 1)).astype(np.float32)
    step = ((last - first) / np.float32(max(1, T - 1))).astype(np.float64)
    frames = np.where(t < max(1, T // 2), first + step * t, last - step * (T - 1 - t))
    return np.clip(frames.astype(np.float32), 0, num_frames - 1).astype(np.int64)


def _release_train_starts(num_frames: int, config: SamplingConfig, x: np.ndarray) -> np.ndarray:
    """Starts of the U snippets, drawn as in the released code."""
    U, L = config.segments, config.span
    step = (num_frames - L + 1) // U
    if step > 0:
        return np.arange(U) * step + _below(x, step)
    if num_frames > max(U, L):
        return np.sort(_below(x, num_frames - L + 1))
    return np.zeros(U, np.int64)


def _uniform_clips(num_frames: int, clips: int, config: SamplingConfig) -> np.ndarray:
    """K clips (K, T) whose windows are spaced evenly; they overlap in short videos."""
    W, segment = config.span, num_frames / config.segments
    if config.mode == "spread" or num_frames // config.segments < W:
        starts = (num_frames - segment) * (np.arange(clips) + 0.5) / clips
        lengths = np.full(clips, segment)
        return _evenly(starts, lengths, np.full(clips, 0.5), num_frames, config.frames)
    tick = (num_frames - W + 1) / clips
    margin = max(0, W - config.frames * config.stride) // 2
    starts = np.floor(tick / 2 + tick * np.arange(clips)).astype(np.int64)
    return _windows(starts + margin, num_frames, config)
