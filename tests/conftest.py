"""Fixtures that several rooms share."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from shards import Source, build_split

CLASSES = ("left", "right", "up", "down")
FRAMES, HEIGHT, WIDTH = 24, 64, 80


def moving_square(label: int, seed: int) -> np.ndarray:
    """RGB frames (T, H, W, 3) of a square that moves in the direction of its class over noise."""
    rng = np.random.default_rng([label, seed])
    frames = rng.integers(0, 60, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    dy, dx = [(0, -1), (0, 1), (-1, 0), (1, 0)][label]
    y, x = rng.integers(16, 32), rng.integers(24, 40)
    for t in range(FRAMES):
        top, left = (y + t * dy) % (HEIGHT - 12), (x + t * dx) % (WIDTH - 12)
        frames[t, top : top + 12, left : left + 12] = (220, 60 * label, 40)
    return frames


def write_video(path: Path, frames: np.ndarray) -> None:
    """Encode frames (T, H, W, 3) as H.264 in mp4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """28 videos of four classes, 80x64, 24 frames."""
    folder = tmp_path_factory.mktemp("videos")
    sources = []
    for number in range(28):
        label = number % len(CLASSES)
        path = folder / f"{CLASSES[label]}-{number:02d}.mp4"
        write_video(path, moving_square(label, number))
        sources.append(Source(path, label, path.stem))
    return sources


@pytest.fixture(scope="session")
def small_shards(small_videos: list[Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set of the small videos: 20 in `train`, 8 in `val`. Treat it as read-only."""
    out = tmp_path_factory.mktemp("shards")
    for name, sources in (("train", small_videos[:20]), ("val", small_videos[20:])):
        assert build_split(sources, out, name, CLASSES).exit_code == 0
    return out
