"""Files are hashed in pieces, and replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from shards.format import files
from shards.format.files import open_descriptor, read_regular, sha256, write_atomic
from tests.alarm import alarm


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


READERS = {"open": open_descriptor, "read": lambda path: read_regular(path, 99), "hash": sha256}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a folder"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, reader, kind, linked):
    path = tmp_path / "a"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))  # a long absolute path does not fit
    elif kind == "a folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    if linked:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    with alarm(), pytest.raises(OSError, match=f"is {kind}, not a regular file") as caught:
        READERS[reader](path)
    assert caught.value.filename == str(path)


def test_a_pipe_that_takes_the_place_of_a_file_is_refused(tmp_path, monkeypatch):
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"x")
    os.mkfifo(pipe)
    before = os.stat(file)
    descriptors = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "stat", lambda path: before)
    with alarm(), pytest.raises(OSError, match="named pipe"):
        open_descriptor(pipe)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_file_of_terabytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(OSError, match="larger than 99 bytes"):
        read_regular(path, 99)


def test_reading_ends_at_the_size_that_a_file_had_when_it_was_opened():
    with alarm():
        assert read_regular("/proc/self/status", 99) == b""


def test_a_regular_file_is_opened_for_blocking_reads(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"text")
    descriptor = open_descriptor(path)
    assert os.get_blocking(descriptor)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert read_regular(path, 4) == b"text"
