"""A shard set for benchmarks: the one that is given, or one made of drawn clips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from shards import ShardSettings, Source, Split, build_split, open_split

# A Kinetics clip as it is usually kept.
HEIGHT, WIDTH, FPS, SECONDS = 256, 340, 30, 10
DRAWN = 8
CLASSES = tuple(f"class{n}" for n in range(10))


def draw_clip(path: Path, seed: int) -> None:
    """Encode ten seconds of drifting texture: as hard to code as a hand-held street scene."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    scene = np.kron(coarse, np.ones((16, 16, 1), np.uint8)).astype(np.int16)
    for axis in (0, 1, 0, 1):  # soften the edges: about as many bytes as Kinetics
        scene = (scene + np.roll(scene, 8, axis)) // 2
    scene += rng.integers(-6, 7, scene.shape, dtype=np.int16)
    picture = scene.clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for t in range(FPS * SECONDS):
            shifted = np.roll(picture, (t, 2 * t), (0, 1))[:HEIGHT, :WIDTH]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shifted), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_set(folder: Path, clips: int) -> None:
    """Write a split `train` and the same as `val`."""
    paths = [folder / f"{n}.mp4" for n in range(DRAWN)]
    for seed, path in enumerate(paths):
        draw_clip(path, seed)
    sources = [Source(paths[n % DRAWN], n % 10, f"{n:04d}") for n in range(clips)]
    for name in ("train", "val"):
        build_split(sources, folder / "shards", name, CLASSES, ShardSettings())


@contextmanager
def shard_set(given: Path | None, clips: int = 32) -> Iterator[Path]:
    """Folder of the given shard set, or of one that lives as long as the benchmark."""
    if given is not None:
        yield given
        return
    with TemporaryDirectory(prefix="dsanet-bench-") as folder:
        make_set(Path(folder), clips)
        yield Path(folder) / "shards"


def lengthen(split: Split, videos: int) -> None:
    """Let a small split count as one of at least so many videos, so that epochs do not end."""
    times = -(-videos // len(split))
    split.samples = np.tile(split.samples, times)
    split._keys = np.tile(split._keys, times)


def describe(root: Path) -> str:
    """One line: how many videos, of what size, how many bytes a frame."""
    split = open_split(root, "train")
    sizes = {f"{s['width']}x{s['height']}" for s in split.samples}
    shown = sizes.pop() if len(sizes) == 1 else f"{len(sizes)} sizes"
    mean = float(split.frames["size"].mean()) / 1024
    return f"{len(split)} videos, {shown}, {split.codec}, {mean:.1f} KiB a frame"
