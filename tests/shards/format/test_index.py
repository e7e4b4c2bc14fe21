"""Side files that other readers need are checked against their own tars."""

from __future__ import annotations

import shutil
from pathlib import Path

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
