"""One shard set of small videos made here, and the real ones where the machine has them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from shards import ShardSettings, Source, build_split
from tests.shards.media import moving_squares, write_video

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


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


@pytest.fixture
def copy(small_set, tmp_path) -> Path:
    """A copy of the split of the small set, for a test to damage."""
    return shutil.copytree(small_set.root / "train", tmp_path / "train")


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real video, where the machine has it."""
    if not REAL.is_dir():
        pytest.skip(f"no real video at {REAL}")
    return REAL
