"""verify names each fault; a sound set has none."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from shards import ShardError, open_split
from shards.build.verify import verify_split
from shards.format.manifest import find_splits, read_manifest, write_json
from shards.format.side_files import scan_tar


@pytest.fixture
def copy(small_set, tmp_path):
    return shutil.copytree(small_set.root / "train", tmp_path / "train")


def flip(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(bytes(data))


def test_a_sound_set_has_no_faults(copy):
    read = []
    assert verify_split(copy, 2, read.append) == []
    assert sum(read) == 3


def test_a_flipped_bit_in_a_frame_is_named(copy):
    split = open_split(copy.parent, "train")
    longest = int(split.samples["num_frames"].argmax())
    sample = split.samples[longest]
    row = split.frames[sample["first_frame"] + 7]
    flip(split.tar_path(longest), int(sample["offset"] + row["offset"] + row["size"] // 2))
    (fault,) = verify_split(copy, 1)
    assert f"sample {split.key(longest)}" in fault
    assert "frame 7" in fault


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_anywhere_is_found(copy, seed):
    (tar,) = copy.glob("*.tar")
    flip(tar, int(np.random.default_rng(seed).integers(tar.stat().st_size)))
    faults = verify_split(copy, 1)
    assert faults
    assert all(tar.name in fault for fault in faults)


@pytest.mark.parametrize("part", ["json", "frames.npy", "mp4"])
def test_a_flipped_bit_in_a_small_member_is_found(copy, part):
    (tar,) = copy.glob("*.tar")
    group = scan_tar(tar).groups[2]
    (member,) = [m for m in group if m.extension == part]
    flip(tar, member.offset + member.size - 20)
    faults = verify_split(copy, 1)
    assert any(member.key in fault for fault in faults)


def test_missing_and_cut_tars_are_named(copy):
    (tar,) = copy.glob("*.tar")
    data = tar.read_bytes()
    tar.write_bytes(data[:-3000])
    assert any("damaged" in f or "record" in f for f in verify_split(copy, 1))
    tar.unlink()
    assert "missing" in verify_split(copy, 1)[0] or "No such file" in verify_split(copy, 1)[0]


def test_an_index_that_lies_is_found(copy):
    frames = np.load(copy / "frames.npy")
    frames["size"][3] += 1
    np.save(copy / "frames.npy", frames)
    assert any("reindex" in fault for fault in verify_split(copy, 1))
    (copy / "train-000000.idx").write_text("v1.2 0\n")
    assert any(".idx" in fault for fault in verify_split(copy, 1))


@pytest.mark.parametrize("name", ["samples", "frames", "keys", "labels", "fragments"])
def test_a_missing_index_file_names_the_remedy(copy, name):
    (copy / f"{name}.npy").unlink()
    with pytest.raises(ShardError, match=rf"{name}.npy is missing; run tools/shard.py reindex"):
        open_split(copy.parent, "train")


def test_a_damaged_index_file_names_the_remedy(copy):
    (copy / "samples.npy").write_bytes(b"nonsense")
    with pytest.raises(ShardError, match=r"reindex"):
        open_split(copy.parent, "train")


def test_pickles_are_never_read(copy):
    np.save(copy / "keys.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ShardError, match="reindex"):
        open_split(copy.parent, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "update the project"),
        ({"version": None}, "format version is missing"),
        ({"format": "other"}, "not the manifest of a shard set"),
    ],
)
def test_other_versions_are_refused_with_the_remedy(copy, change, message):
    write_json(copy / "manifest.json", read_manifest(copy) | change)
    with pytest.raises(ShardError, match=message):
        open_split(copy.parent, "train")


def test_splits_are_found_by_set_or_by_name(copy, tmp_path):
    assert find_splits(tmp_path) == [copy]
    assert find_splits(copy) == [copy]
    with pytest.raises(ShardError, match="no such folder"):
        find_splits(tmp_path / "none")
