"""Whole videos block by block: each wanted frame once, as it is, on any number of processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipelines import LoaderConfig, LoaderUsageError, Rank, SamplingConfig
from pipelines.plan.windows import window_frames, windows_of
from pipelines.window_loader import WindowLoader
from shards import Split
from tests.pipelines.loaders import ONE

SAMPLING = SamplingConfig(segments=2, frames=2, stride=2)
SIZES = {"crop_size": 32, "resize_short": 32}


def wanted(split: Split, video: int) -> list[int]:
    row = split.samples[video]
    windows = windows_of(int(row["num_frames"]), float(row["fps"]))
    return sorted(set(window_frames(windows, SAMPLING).ravel().tolist()))


@pytest.mark.parametrize("codec", ["mjpeg", "vp9"])
def test_each_wanted_frame_is_decoded_once(codec: str, split_of: Callable[[str], Split]) -> None:
    split = split_of(codec)
    loader = WindowLoader(split, SAMPLING, ONE, crops=3, **SIZES)
    shown: dict[int, list[int]] = {}
    for batch in loader:
        video = int(batch.ids[0])
        block = loader.plans.blocks(video)[len(shown.get(video, ())) // 64]
        assert batch.clips.shape == (1, 3, 64, 32, 32, 3)
        shown.setdefault(video, []).extend(block.tolist())
    read = loader.reader.meter.videos
    loader.close()
    for video, frames in shown.items():
        assert sorted(set(frames)) == wanted(split, video)
        assert frames[: len(set(frames))] == sorted(set(frames))  # only the end is padding
    assert list(shown) == list(range(len(split)))
    assert read == sum(len(frames) // 64 for frames in shown.values())


def test_processes_share_the_videos(split: Split) -> None:
    videos = []
    for rank in range(3):
        loader = WindowLoader(split, SAMPLING, ONE, rank=Rank(rank, 3, "cpu"), **SIZES)
        ids = [int(batch.ids[0]) for batch in loader]
        assert len(ids) == len(loader)
        videos.append(sorted(set(ids)))
        loader.close()
    assert sorted(video for part in videos for video in part) == list(range(len(split)))
    assert videos[1][:2] == [1, 4]


def test_a_stream_has_no_windows(split: Split) -> None:
    with pytest.raises(LoaderUsageError, match=r"^loader.reader must be frames for windows"):
        WindowLoader(split, SAMPLING, LoaderConfig(reader="webdataset"), **SIZES)
