"""Small videos made here, and one shard set of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from shards import ShardSettings, Source, build_split

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def moving_squares(count: int, size: tuple[int, int] = (96, 64), seed: int = 0) -> list[np.ndarray]:
    """RGB frames (H, W, 3) of a bright square moving over a smooth background."""
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    corners = rng.uniform(60, 190, (2, 3))
    background = corners[0] + (corners[1] - corners[0]) * ((x + y) / (width + height))[..., None]
    frames = []
    for t in range(count):
        frame = background.astype(np.uint8)
        left, top = (3 * t + 5) % (width - 16), (2 * t + 3) % (height - 16)
        frame[top : top + 16, left : left + 16] = rng.integers(180, 250, 3)
        frames.append(frame)
    return frames


def write_video(path: Path, frames: list[np.ndarray], rate: int | Fraction = 25, **more) -> Path:
    """Encode RGB frames (H, W, 3); `more`: codec, format, pix_fmt, pts (ms), options."""
    codec, pts = more.get("codec", "libx264"), more.get("pts")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=more.get("format")) as container:
        stream = container.add_stream(codec, rate=rate, options=more.get("options", {"crf": "12"}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = more.get("pix_fmt", "yuv420p")
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@dataclass(frozen=True)
class SmallSet:
    """A shard set of three videos and what it was made of."""

    root: Path
    videos: Path
    sources: list[Source]


@pytest.fixture(scope="session")
def small_set(tmp_path_factory) -> SmallSet:
    root, videos = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("videos")
    sources = []
    for seed, (name, count, label) in enumerate([("a", 12, 0), ("b", 20, 1), ("c", 1, 0)]):
        path = write_video(videos / f"{name}.mp4", moving_squares(count, seed=seed))
        sources.append(Source(path, label, name, name=path.name))
    report = build_split(sources, root, "train", ["one", "two"], ShardSettings(workers=1))
    assert report.exit_code == 0
    return SmallSet(root, videos, sources)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real video, where the machine has it."""
    if not REAL.is_dir():
        pytest.skip(f"no real video at {REAL}")
    return REAL
