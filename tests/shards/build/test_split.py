"""A split is built, opened, and every frame is where the index says."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from shards import ShardError, ShardSettings, Source, build_split, open_split
from shards.build.split import Report


def frame_bytes(split, i: int, t: int) -> bytes:
    sample = split.samples[i]
    row = split.frames[sample["first_frame"] + t]
    with open(split.tar_path(i), "rb") as file:
        file.seek(int(sample["offset"]) + int(row["offset"]))
        return file.read(int(row["size"]))


def test_every_frame_is_a_jpeg_at_its_place(small_set):
    split = open_split(small_set.root, "train")
    assert len(split) == 3
    for i in range(len(split)):
        for t in range(split.samples["num_frames"][i]):
            data = frame_bytes(split, i, t)
            row = split.frames[split.samples["first_frame"][i] + t]
            assert zlib.crc32(data) == row["crc32"]
            assert data[:2] == b"\xff\xd8"
            assert data[-2:] == b"\xff\xd9"


def test_frames_show_what_the_source_shows(small_set):
    split = open_split(small_set.root, "train")
    for i in range(len(split)):
        with av.open(str(small_set.videos / f"{split.key(i)}.mp4")) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert len(frames) == split.samples["num_frames"][i]
        for t in (0, len(frames) - 1):
            decoder = av.CodecContext.create("mjpeg", "r")
            (decoded,) = decoder.decode(av.Packet(frame_bytes(split, i, t)))
            error = decoded.to_ndarray(format="rgb24").astype(float) - frames[t]
            assert np.sqrt((error**2).mean()) < 6


def test_the_same_list_makes_the_same_bytes(small_set, tmp_path):
    sources = small_set.sources[::-1]
    build_split(sources, tmp_path, "train", ["one", "two"], ShardSettings(workers=1))
    for tar in open_split(small_set.root, "train").tars:
        assert tar.read_bytes() == (tmp_path / "train" / tar.name).read_bytes()


def test_other_settings_do_not_mix(small_set):
    with pytest.raises(ShardError, match="short_side was 256"):
        build_split(
            small_set.sources, small_set.root, "train", ["one", "two"], ShardSettings(short_side=64)
        )


def test_a_label_outside_the_classes_is_refused(tmp_path):
    source = Source(Path(tmp_path / "x.mp4"), 2, "x")
    with pytest.raises(ShardError, match="label 2"):
        build_split([source], tmp_path, "train", ["one", "two"])


def test_unlabelled_videos_make_a_split_without_labels(small_set, tmp_path):
    sources = [replace(source, label=-1) for source in small_set.sources]
    build_split(sources, tmp_path, "test", ["one", "two"], ShardSettings(workers=1))
    split = open_split(tmp_path, "test")
    assert set(split.samples["label"]) == {-1}
    assert [split.labels(i) for i in range(3)] == [(), (), ()]


def test_several_labels_are_kept_in_order(small_set, tmp_path):
    source = Source(small_set.sources[0].path, 1, "a", labels=(1, 0))
    build_split([source], tmp_path, "train", ["one", "two"], ShardSettings(workers=1))
    split = open_split(tmp_path, "train")
    assert split.labels(0) == (1, 0)
    assert split.samples["label"][0] == 1


def test_a_share_without_a_good_video_is_not_a_failure(tmp_path):
    bad = [{"status": "refused", "kind": "corrupt"}]
    assert Report(tmp_path, bad).exit_code == 1
    assert Report(tmp_path, bad, share=True).exit_code == 3
