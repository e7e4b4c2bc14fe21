"""The index of a split: parts of it, and files that are missing or damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from shards import ShardError, open_split
from shards.format.index import check_idx_files


def test_damaged_idx_file_is_named(small_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shards / "val", tmp_path / "val")
    split = open_split(tmp_path, "val")
    check_idx_files(split)
    path = split.tars[0].with_suffix(".idx")
    whole = path.read_bytes()
    for size in (0, 1, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=f"{path} is damaged; run .* reindex"):
            check_idx_files(split)
    path.write_bytes(whole + whole[-20:])
    with pytest.raises(ShardError, match=f"{path} is damaged"):
        check_idx_files(split)
    path.unlink()
    with pytest.raises(ShardError, match=f"{path} is missing; run .* reindex"):
        check_idx_files(split)


@pytest.mark.parametrize("name", ["samples", "frames", "keys", "labels", "fragments"])
def test_an_empty_array_names_the_remedy(copy, name):
    (copy / f"{name}.npy").write_bytes(b"")
    with pytest.raises(ShardError, match=r"reindex"):
        open_split(copy.parent, "train")


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
