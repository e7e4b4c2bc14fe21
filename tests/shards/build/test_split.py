"""A split is built, opened, and every frame is where the index says."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from shards import ShardError, ShardSettings, Source, build_split, open_split


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


def test_index_knows_sizes_rates_and_labels(small_set):
    split = open_split(small_set.root, "train")
    labels = {split.key(i): int(split.samples["label"][i]) for i in range(len(split))}
    assert labels == {"a": 0, "b": 1, "c": 0}
    assert set(split.samples["fps"]) == {25.0}
    assert set(split.samples["width"]) == {96}
    assert set(split.samples["height"]) == {64}
    assert split.classes == ("one", "two")
    assert split.codec == "mjpeg"
    assert all(path.is_file() for path in split.tars)


def test_index_is_read_only(small_set):
    split = open_split(small_set.root, "train")
    with pytest.raises(ValueError, match="read-only"):
        split.frames["size"][0] = 1


@pytest.mark.parametrize(
    ("root", "name", "message"),
    [
        ("nowhere", "train", "no such folder"),
        (".", "test", "no split 'test', it has train"),
        ("train", "train", "train is a split, not a shard set; give the folder above it"),
    ],
)
def test_a_missing_split_is_named(small_set, root, name, message):
    with pytest.raises(ShardError, match=message):
        open_split(small_set.root / root, name)


def test_the_same_list_makes_the_same_bytes(small_set, tmp_path):
    sources = small_set.sources[::-1]
    build_split(sources, tmp_path, "train", ["one", "two"], ShardSettings(workers=1))
    for tar in open_split(small_set.root, "train").tars:
        assert tar.read_bytes() == (tmp_path / "train" / tar.name).read_bytes()


def test_a_part_of_a_split_is_these_samples(small_set) -> None:
    split = open_split(small_set.root, "train")
    ids = np.array([len(split) - 1, 0])
    part = split.part(ids)
    assert len(part) == 2
    for new, old in enumerate(ids):
        assert (part.key(new), part.labels(new)) == (split.key(old), split.labels(old))
        assert part.tar_path(new) == split.tar_path(old)
        assert part.samples[new] == split.samples[old]
    assert len(split) > 2


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
