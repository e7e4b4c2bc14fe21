"""Shard sets for the benchmarks, made of the videos of `benches.videos`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benches.videos import encode, make_videos
from shards import ShardSettings, Source, Split, build_split, open_split

DISTINCT = 8  # videos; the others of a shard set are copies
CLASSES = tuple(f"class{n}" for n in range(10))


def _make_set(folder: Path, videos: int) -> None:
    """Write a split `train` and a split `val` with the same videos."""
    paths = make_videos(folder, DISTINCT)
    sources = [Source(paths[n % DISTINCT], n % 10, f"{n:04d}") for n in range(videos)]
    for name in ("train", "val"):
        build_split(sources, folder / "shards", name, CLASSES, ShardSettings())


@contextmanager
def shard_set(folder: Path | None, videos: int = 32) -> Iterator[Path]:
    """The shard set in `folder`; if that is None, one made for the length of the `with`."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory(prefix="dsanet-bench-") as scratch:
        _make_set(Path(scratch), videos)
        yield Path(scratch) / "shards"


def repeat_split(root: Path, name: str, out: Path, videos: int) -> None:
    """Write a split to `out` that repeats the samples of `root`/`name` up to `videos` of them.

    Its epochs are long enough for a benchmark, and it needs no disk: the tars are links.
    """
    samples = len(open_split(root, name))
    source, target = root / name, out / name
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).symlink_to(path.resolve())
    videos = max(videos, samples)
    rows = np.arange(videos) % samples
    for table in ("samples", "keys"):
        path = target / f"{table}.npy"
        array = np.load(path)
        path.unlink()
        np.save(path, array[rows])
    path = target / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["counts"]["samples"] = videos
    path.unlink()
    path.write_text(json.dumps(manifest), encoding="utf-8")


def describe(root: Path) -> str:
    """One line about the train split: number of videos, their size, and the bytes of a frame."""
    split = open_split(root, "train")
    sizes = {f"{s['width']}x{s['height']}" for s in split.samples}
    shown = sizes.pop() if len(sizes) == 1 else f"{len(sizes)} sizes"
    mean = float(split.frames["size"].mean()) / 1024
    return f"{len(split)} videos, {shown}, {split.codec}, {mean:.1f} KiB a frame"


def make_tiny(folder: Path) -> Split:
    """192 videos of ten seconds and 48 x 48 pixels: almost nothing to read and decode."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.mp4"
    grey = (np.full((48, 48, 3), t % 256, np.uint8) for t in range(300))
    encode(path, grey, 48, 48, Fraction(30))
    sources = [Source(path=path, label=0, key=f"tiny-{copy}") for copy in range(192)]
    build_split(sources, folder / "shards", "train", ("clip",), ShardSettings())
    return open_split(folder / "shards", "train")


def make_shards(
    folder: Path, videos: list[Path], codec: str, copies: int, **settings: Any
) -> Split:
    """A split that holds every video `copies` times; each is encoded once."""
    name = "-".join([codec, str(len(videos)), str(copies), *map(str, settings.values())])
    root = folder / name
    if not (root / "train" / "manifest.json").exists():
        if copies > 1:
            once = make_shards(folder, videos, codec, 1, **settings)
            videos, settings = extract(once, folder / f"{name}-files"), settings | {"copy": True}
        sources = [
            Source(path=video, label=0, key=f"{video.stem.partition('-')[0]}-{copy}")
            for copy in range(copies)
            for video in videos
        ]
        build_split(sources, root, "train", ("clip",), ShardSettings(codec=codec, **settings))
    return open_split(root, "train")


def extract(split: Split, folder: Path) -> list[Path]:
    """Write the videos of a split as single files, and return their paths by sample."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for sample in range(len(split)):
        row, path = split.samples[sample], folder / f"{split.key(sample)}.mp4"
        if not path.exists():
            with open(split.tar_path(sample), "rb") as tar:
                tar.seek(int(row["offset"]))
                path.write_bytes(tar.read(int(row["size"])))
        paths.append(path)
    return paths


def jpeg_folders(split: Split, folder: Path) -> list[list[Path]]:
    """Write the frames of an mjpeg split as JPEG files: their paths by sample and frame.

    Many trainers keep their data in this form, one folder per video.
    """
    videos = []
    for sample in range(len(split)):
        # The copies of a video share a folder: what is read is in the page cache either way.
        row, target = split.samples[sample], folder / split.key(sample).rsplit("-", 1)[0]
        rows = split.frames[row["first_frame"] : row["first_frame"] + row["num_frames"]]
        paths = [target / f"{number:05d}.jpg" for number in range(len(rows))]
        if not paths[-1].exists():
            target.mkdir(parents=True, exist_ok=True)
            with open(split.tar_path(sample), "rb") as tar:
                tar.seek(int(row["offset"]))
                data = tar.read(int(row["size"]))
            for path, entry in zip(paths, rows, strict=True):
                start = int(entry["offset"])
                path.write_bytes(data[start : start + int(entry["size"])])
        videos.append(paths)
    return videos
