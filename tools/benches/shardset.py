"""A shard set for benchmarks: the one that is given, or one made of Kinetics-like clips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benches.clips import make_videos
from shards import ShardSettings, Source, Split, build_split, open_split

CLIPS = 8  # distinct ones
CLASSES = tuple(f"class{n}" for n in range(10))


def make_set(folder: Path, videos: int) -> None:
    """Write a split `train` and the same as `val`."""
    paths = make_videos(folder, CLIPS)
    sources = [Source(paths[n % CLIPS], n % 10, f"{n:04d}") for n in range(videos)]
    for name in ("train", "val"):
        build_split(sources, folder / "shards", name, CLASSES, ShardSettings())


@contextmanager
def shard_set(given: Path | None, videos: int = 32) -> Iterator[Path]:
    """Folder of the given shard set, or of one that lives as long as the benchmark."""
    if given is not None:
        yield given
        return
    with TemporaryDirectory(prefix="dsanet-bench-") as folder:
        make_set(Path(folder), videos)
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
