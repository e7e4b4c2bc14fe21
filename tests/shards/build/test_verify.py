"""verify names each fault; a valid set has none."""

from __future__ import annotations

import numpy as np
import pytest

from shards import ShardError, open_split
from shards.build.verify import verify_split
from shards.format.side_files import scan_tar


def flip(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(bytes(data))


def test_a_valid_set_has_no_faults(copy):
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


def test_an_odd_index_of_a_tar_is_a_fault(copy):
    (path,) = copy.glob("*.idx")
    path.write_bytes(b"\xff\xfe\x00")
    assert "is missing or wrong; reindex" in verify_split(copy, 1)[0]


@pytest.mark.parametrize("workers", [0, -2])
def test_verify_needs_a_worker(copy, workers):
    with pytest.raises(ShardError, match="workers must be at least 1") as caught:
        verify_split(copy, workers)
    assert caught.value.exit_code == 2
