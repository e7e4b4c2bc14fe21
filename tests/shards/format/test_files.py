"""Files are hashed in pieces, and replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from shards.format import files
from shards.format.files import sha256, write_atomic


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
def test_the_hash_does_not_depend_on_the_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr(files, "CHUNK", 8)
    path = tmp_path / "a"
    path.write_bytes(bytes(range(size)))
    assert sha256(path) == hashlib.sha256(bytes(range(size))).hexdigest()


def test_content_and_name_are_brought_to_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    write_atomic(tmp_path / "a", b"text")
    assert synced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomic(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_cannot_sync_folders_is_accepted(tmp_path, monkeypatch):
    sync = os.fsync

    def files_only(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    write_atomic(tmp_path / "a", b"text")
    assert (tmp_path / "a").read_bytes() == b"text"
