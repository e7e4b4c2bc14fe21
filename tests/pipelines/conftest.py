"""Small shard sets made from synthetic video, built once per session."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from shards import ShardSettings, Source, Split, build_split, open_split

CLASSES = ("left to right", "right to left", "still")
SIZES = ((96, 128), (128, 96), (100, 140))
SHORT = [1, 2, 3, 5, 9, 31, 45, 64, 90]
LARGE = ((192, 256), (256, 192), (200, 280))  # NVDEC takes VP9 from 128 pixels on, HEVC from 144


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def moving_video(path: Path, frames: int, size: tuple[int, int], seed: int) -> None:
    """A smooth background with a bright square that moves a little in each frame (FFV1)."""
    height, width = size
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack(
        [127 + 80 * np.sin(x / a + y / b) for a, b in generator.uniform(12, 40, (3, 2))], axis=-1
    )
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        stream.thread_count = 1
        for t in range(frames):
            image = base.copy()
            left = (3 * t + 7 * seed) % (width - 24)
            image[20:44, left : left + 24] = (240, 30 + 5 * (seed % 8), 60)
            frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode())


def make_split(
    folder: Path,
    lengths: list[int],
    codec: str = "mjpeg",
    name: str = "train",
    sizes: tuple[tuple[int, int], ...] = SIZES,
    **settings: object,
) -> Split:
    """A split with one video for each length, sizes and labels in turn."""
    sources = []
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    for number, length in enumerate(lengths):
        path = folder / "videos" / f"{number:03d}.mkv"
        if not path.exists():
            moving_video(path, length, sizes[number % len(sizes)], number)
        sources.append(Source(path=path, label=number % len(CLASSES), key=f"v{number:03d}"))
    chosen = ShardSettings(codec=codec, workers=1, **settings)  # type: ignore[arg-type]
    report = build_split(sources, folder / codec, name, CLASSES, chosen)
    assert report.exit_code == 0, report
    return open_split(folder / codec, name)


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the shard sets of this session."""
    return tmp_path_factory.mktemp("loader")


@pytest.fixture(scope="session")
def split(video_folder: Path) -> Split:
    """26 mjpeg videos of 1 to 200 frames in several tars."""
    lengths = [1, 2, 3, 5, 12, 31, 45, 64, 90, 130, 150, 200] + [40 + n for n in range(14)]
    return make_split(video_folder, lengths, tar_samples=5)


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def made_once(
    folder: Path, lengths: list[int], sizes: tuple[tuple[int, int], ...] = SIZES
) -> Callable[[str], Split]:
    """A function: codec -> a split of videos of these lengths, built at the first call."""
    made: dict[str, Split] = {}

    def get(codec: str) -> Split:
        if codec not in made:
            made[codec] = make_split(folder, lengths, codec, sizes=sizes, tar_samples=4)
        return made[codec]

    return get


@pytest.fixture(scope="session")
def split_of(video_folder: Path) -> Callable[[str], Split]:
    """A function: codec -> a split of nine videos of 1 to 90 frames in that codec."""
    return made_once(video_folder / "codecs", SHORT)


@pytest.fixture(scope="session")
def large_split_of(video_folder: Path) -> Callable[[str], Split]:
    """A function: codec -> the videos of `split_of` in a size that a GPU's video decoder takes."""
    return made_once(video_folder / "large", SHORT, LARGE)
