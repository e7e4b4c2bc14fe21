"""Windows over untrimmed videos against a plain loop, and the blocks that they are decoded in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines import SamplingConfig
from pipelines.plan.sampling import val_frames
from pipelines.plan.windows import BLOCK, SECONDS, blocks_of, window_frames, windows_of

VIDEOS = [(1, 25.0), (10, 30.0), (24, 25.0), (25, 25.0), (26, 25.0), (100, 10.0), (1511, 25.0),
          (3343, 29.97), (900, 30.0)]  # fmt: skip


def slow_windows(N: int, fps: float) -> list[tuple[int, int, int]]:
    """A window begins every 4/5 of its length; the last one is moved to end with the video."""
    windows = []
    for scale, seconds in enumerate((1, 2, 4, 8, 16)):
        width = round(seconds * fps)
        if width >= N:
            windows.append((scale, 0, N))
            continue
        start, step = 0, math.ceil(round(0.8 * width, 6))
        while start + width < N:
            windows.append((scale, start, start + width))
            start += step
        windows.append((scale, N - width, N))
    return windows


@pytest.mark.parametrize(("frames", "fps"), VIDEOS)
def test_windows_against_a_loop(frames: int, fps: float) -> None:
    found = [(w.scale, w.start, w.stop) for w in windows_of(frames, fps)]
    assert found == slow_windows(frames, fps)


@pytest.mark.parametrize(("frames", "fps"), VIDEOS)
def test_windows_of_each_length_cover_the_video(frames: int, fps: float) -> None:
    for scale in range(len(SECONDS)):
        seen = np.zeros(frames, bool)
        for window in windows_of(frames, fps):
            if window.scale == scale:
                seen[window.start : window.stop] = True
        assert seen.all()


def test_an_input_is_the_validation_of_its_window() -> None:
    sampling = SamplingConfig(frames=2, stride=2)
    windows = windows_of(700, 25.0)
    for window, frames in zip(windows, window_frames(windows, sampling), strict=True):
        inside = val_frames(window.stop - window.start, sampling)
        assert (frames - window.start).tolist() == inside.tolist()
        assert frames.max() < window.stop


@pytest.mark.parametrize(("frames", "fps"), VIDEOS)
def test_each_wanted_frame_is_in_one_block(frames: int, fps: float) -> None:
    wanted = window_frames(windows_of(frames, fps), SamplingConfig())
    blocks = blocks_of(wanted)
    assert blocks.shape[1] == BLOCK
    padding = blocks.size - len(np.unique(wanted))
    assert 0 <= padding < BLOCK
    assert blocks.reshape(-1)[: blocks.size - padding].tolist() == sorted(set(wanted.ravel()))
    assert (blocks[-1, BLOCK - padding :] == wanted.max()).all()
