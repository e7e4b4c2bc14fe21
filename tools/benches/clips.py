"""Kinetics-like clips for the loader's benchmarks: real ones, and re-encoded relatives of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import av

from shards import ShardSettings, Source, Split, build_split, open_split

ODD = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "odd"
REAL = ("R6llTwEh07w.mp4", "mmaction2_demo.mp4")  # 340x256, 10 s, H.264 as downloaded


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_seconds() -> float:
    """Processor time of this process and its living children (workers of a DataLoader)."""
    total, tick, me = time.process_time(), os.sysconf("SC_CLK_TCK"), str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[1] == me:
                total += (int(fields[11]) + int(fields[12])) / tick
    return total


def make_videos(folder: Path, count: int) -> list[Path]:
    """`count` H.264 files of 10 s: the real clips, then mirrored and shifted relatives.

    FileNotFoundError where the real clips are not at hand.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"clip{number:03d}.mp4"
        source = ODD / REAL[number % len(REAL)]
        if not path.exists():
            variant = number // len(REAL)
            if variant == 0:
                shutil.copy(source, path)
            else:
                _relative(source, path, variant)
        paths.append(path)
    return paths


def _relative(source: Path, path: Path, variant: int) -> None:
    """Another clip of the same kind: mirrored (odd variants) and moved by a few rows."""
    partial = path.with_suffix(".part")
    with av.open(str(source)) as given, av.open(str(partial), "w", format="mp4") as out:
        picture = given.streams.video[0]
        stream = out.add_stream("libx264", rate=picture.average_rate, options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
        for frame in given.decode(picture):
            image = frame.to_ndarray(format="rgb24")
            image = image[:, ::-1] if variant % 2 else image
            image = image[list(range(variant, len(image))) + list(range(variant))]
            made = av.VideoFrame.from_ndarray(image.copy(), format="rgb24")
            out.mux(stream.encode(made))
        out.mux(stream.encode())
    partial.replace(path)


def make_shards(
    folder: Path, videos: list[Path], codec: str, copies: int, **settings: Any
) -> Split:
    """A split in which every video is held `copies` times, encoded once."""
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
    """The stored files of a split as files of their own."""
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
    """The frames of an mjpeg split as a folder of JPEGs per video, as older trainers keep them."""
    videos = []
    for sample in range(len(split)):
        # The copies of a video share a folder: what is read is in the page cache either way.
        row, place = split.samples[sample], folder / split.key(sample).rsplit("-", 1)[0]
        rows = split.frames[row["first_frame"] : row["first_frame"] + row["num_frames"]]
        paths = [place / f"{number:05d}.jpg" for number in range(len(rows))]
        if not paths[-1].exists():
            place.mkdir(parents=True, exist_ok=True)
            with open(split.tar_path(sample), "rb") as tar:
                tar.seek(int(row["offset"]))
                data = tar.read(int(row["size"]))
            for path, entry in zip(paths, rows, strict=True):
                start = int(entry["offset"])
                path.write_bytes(data[start : start + int(entry["size"])])
        videos.append(paths)
    return videos
