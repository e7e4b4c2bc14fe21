"""Videos and shard sets of the check, made once and kept in the scratch folder for all parts."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from benches.shard_sets import CLASSES, make_shards
from benches.videos import encode, make_videos

from gpu.frames import picture
from gpu.job import Job
from shards import ShardSettings, Source, Split, build_split


def videos(job: Job) -> list[Path]:
    """Ten seconds of 340 x 256 pixels each; at toy sizes 32 frames of 80 x 64."""
    folder, count = job.scratch / "videos", job.sizes.clips
    if not job.sizes.toy:
        return make_videos(folder, count)
    folder.mkdir(parents=True, exist_ok=True)
    return [_small_video(folder / f"small{number}.mp4", 80, 64) for number in range(count)]


def _small_video(path: Path, width: int, height: int, frames: int = 32) -> Path:
    if not path.exists():
        whole = picture(height + frames, width, 0)
        shifted = (whole[t : t + height] for t in range(frames))
        encode(path, shifted, width, height, Fraction(30))
    return path


def shards(job: Job, codec: str) -> Split:
    """A split of short videos in this codec: of a size that NVDEC takes, except at toy sizes."""
    folder = job.scratch / "short"
    folder.mkdir(parents=True, exist_ok=True)
    sides = (80, 64) if job.sizes.toy else (340, 256)
    paths = [_small_video(folder / "short.mp4", *sides)]
    settings = {} if codec == "mjpeg" else {"gop": 8}
    return make_shards(folder, paths, codec, copies=8, **settings)


def training_set(job: Job) -> Path:
    """A shard set with splits `train` and `val` of the same videos, 32 of them; 4 at toy sizes."""
    root, count = job.scratch / "set", 4 if job.sizes.toy else 32
    paths = videos(job)
    for name in ("train", "val"):
        if not (root / name / "manifest.json").exists():
            sources = [
                Source(paths[n % len(paths)], n % len(CLASSES), f"{n:04d}") for n in range(count)
            ]
            workers = len(os.sched_getaffinity(0))
            build_split(sources, root, name, CLASSES, ShardSettings(workers=workers))
    return root
