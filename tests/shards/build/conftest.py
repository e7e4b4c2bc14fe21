"""Eight equal videos, and the split that they make when nothing goes wrong."""

from __future__ import annotations

import pytest

from shards import Source, build_split
from tests.shards.build.interrupted import SETTINGS, contents
from tests.shards.media import moving_squares, write_video


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> list[Source]:
    folder = tmp_path_factory.mktemp("videos")
    first = write_video(folder / "v0.mp4", moving_squares(60, (320, 240)))
    paths = [folder / f"v{number}.mp4" for number in range(8)]
    for path in paths[1:]:
        path.write_bytes(first.read_bytes())
    return [Source(path, 0, path.stem, name=path.name) for path in paths]


@pytest.fixture(scope="session")
def unbroken(sources, tmp_path_factory) -> dict[str, bytes]:
    """The files of the split of `sources`, built with SETTINGS."""
    out = tmp_path_factory.mktemp("unbroken")
    assert build_split(sources, out, "train", ["x"], SETTINGS).exit_code == 0
    return contents(out / "train")
