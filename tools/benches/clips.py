"""Kinetics-like clips for the loader's benchmarks: real ones and re-encoded relatives of them, or
generated ones where the real are not at hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

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


def kind_of_clips() -> str:
    """What `make_videos` makes here, for the record of a run."""
    return "real" if _real() else "generated"


def _real() -> list[Path]:
    paths = [ODD / name for name in REAL]
    return paths if all(path.exists() for path in paths) else []


def make_videos(folder: Path, count: int) -> list[Path]:
    """`count` H.264 files of 10 s: the real clips, then mirrored and shifted relatives; without
    the real ones, moving textures as hard to encode (see `_texture`)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, real = [], _real()
    for number in range(count):
        path = folder / f"clip{number:03d}.mp4"
        if not path.exists():
            variant = number // len(REAL)
            if not real:
                _encode(path, _panned(number), 340, 256, Fraction(30))
            elif variant == 0:
                shutil.copy(real[number], path)
            else:
                _relative(real[number % len(REAL)], path, variant)
        paths.append(path)
    return paths


def _relative(source: Path, path: Path, variant: int) -> None:
    """Another clip of the same kind: mirrored (odd variants) and moved by a few rows."""
    with av.open(str(source)) as given:
        picture = given.streams.video[0]

        def images() -> Iterator[np.ndarray]:
            for frame in given.decode(picture):
                image = frame.to_ndarray(format="rgb24")
                image = image[:, ::-1] if variant % 2 else image
                yield np.roll(image, -variant, axis=0)

        _encode(path, images(), picture.width, picture.height, picture.average_rate)


def _encode(
    path: Path, images: Iterable[np.ndarray], width: int, height: int, rate: Fraction | None
) -> None:
    partial = path.with_suffix(".part")
    with av.open(str(partial), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in images:
            made = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            out.mux(stream.encode(made))
        out.mux(stream.encode())
    partial.replace(path)


def _panned(seed: int) -> Iterator[np.ndarray]:
    """300 frames (256, 340, 3) of a camera that wanders over a texture."""
    generator = np.random.default_rng(seed)
    texture = _texture(generator, 512, 680)
    for t in range(300):
        y, x = int(128 + 120 * np.sin(t / 47 + seed)), int(170 + 160 * np.sin(t / 31 + 2 * seed))
        noise = generator.normal(0, 3, (256, 340, 1))
        yield np.clip(texture[y : y + 256, x : x + 340] + noise, 0, 255).astype(np.uint8)


def _texture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose spectrum falls like 1 / f^1.4: its JPEGs are as large as those of real clips."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    shape = (3, *frequency.shape)
    spectrum = (generator.normal(size=shape) + 1j * generator.normal(size=shape)) / frequency**1.4
    spectrum[:, 0, 0] = 0
    planes = np.fft.irfft2(spectrum, s=(height, width))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    light, red, blue = planes
    return 120 + 45 * np.stack([light + red / 4, light, light + blue / 4], axis=-1)


def make_tiny(folder: Path) -> Split:
    """192 videos of ten seconds in 48 x 48: next to nothing to read and decode."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.mp4"
    grey = (np.full((48, 48, 3), t % 256, np.uint8) for t in range(300))
    _encode(path, grey, 48, 48, Fraction(30))
    sources = [Source(path=path, label=0, key=f"tiny-{copy}") for copy in range(192)]
    build_split(sources, folder / "shards", "train", ("clip",), ShardSettings())
    return open_split(folder / "shards", "train")


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
