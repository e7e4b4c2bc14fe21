"""Tars written in place are plain USTAR, and read by Python's own tarfile."""

from __future__ import annotations

import fcntl
import io
import os
import tarfile

import pytest

from shards import ShardError
from shards.format import tars as tars_module
from shards.format.tars import TarWriter, Window, iter_members, read_member


@pytest.fixture
def tar(tmp_path):
    path = tmp_path / "x.tar"
    writer = TarWriter(path)
    with writer.stream_member("a.bin") as window:
        window.write(b"0123456789")
        window.seek(2)
        window.write(b"xy")
    writer.add("a.json", b"{}" * 300)
    writer.finish({"b": 1})
    return path


def write_and_fail(writer):
    with writer.stream_member("b") as window:
        window.write(bytes(5000))
        raise ZeroDivisionError


def test_tarfile_reads_what_was_written(tar):
    with tarfile.open(tar) as archive:
        assert archive.extractfile("a.bin").read() == b"01xy456789"
        assert archive.extractfile("a.json").read() == b"{}" * 300
        assert [m.isreg() for m in archive.getmembers()] == [True, True, False]
        assert {m.mtime for m in archive.getmembers()} == {0}


def test_members_agree_with_tarfile(tar):
    with tarfile.open(tar) as archive, open(tar, "rb") as file:
        found = list(iter_members(file))
        assert [(m.name, m.size, m.offset) for m in found] == [
            (m.name, m.size, m.offset_data) for m in archive.getmembers()
        ]
        assert read_member(file, found[0]) == b"01xy456789"


def test_an_error_inside_a_member_leaves_no_trace(tmp_path):
    paths = [tmp_path / "clean.tar", tmp_path / "failed.tar"]
    for path in paths:
        writer = TarWriter(path)
        writer.add("a", b"1")
        if path.name == "failed.tar":
            with pytest.raises(ZeroDivisionError):
                write_and_fail(writer)
        writer.add("c", b"3")
        writer.finish({})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_writing_goes_on_at_an_offset(tmp_path):
    first = TarWriter(tmp_path / "x.tar")
    first.add("a", b"1")
    keep = first.offset
    first.add("b", bytes(3000))
    first.close()
    second = TarWriter(tmp_path / "x.tar", keep)
    second.add("c", b"3")
    second.finish({})
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert archive.getnames() == ["a", "c", "__record__"]


@pytest.mark.parametrize("cut", [700, 1600])
def test_a_cut_tar_is_noticed(tar, cut):
    data = tar.read_bytes()[:cut]
    with pytest.raises(tarfile.TarError):
        list(iter_members(io.BytesIO(data)))


def test_a_window_behaves_like_a_file(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"__hello__")
    with open(path, "r+b") as file:
        window = Window(file, 2, 5)
        assert window.read() == b"hello"
        assert window.read() == b""
        window.seek(-2, 2)
        assert window.read(10) == b"lo"


def test_two_writers_of_one_tar_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(tars_module, "LOCK_TIMEOUT", 0.1)
    first = TarWriter(tmp_path / "x.part")
    first.add("a", b"kept")
    first.flush()
    with pytest.raises(ShardError, match=r"x\.part: another process is writing"):
        TarWriter(tmp_path / "x.part")
    assert b"kept" in (tmp_path / "x.part").read_bytes()
    first.finish({}, tmp_path / "x.tar")
    second = TarWriter(tmp_path / "x.part")  # a new file: the finished one is left alone
    second.close()
    assert b"kept" in (tmp_path / "x.tar").read_bytes()


def test_a_file_renamed_while_it_is_being_locked_is_left_alone(tmp_path, monkeypatch):
    part, finished = tmp_path / "x.part", tmp_path / "x.tar"
    part.write_bytes(b"kept")
    real = os.fstat

    def rename_then_fstat(descriptor: int) -> os.stat_result:
        monkeypatch.undo()
        part.rename(finished)  # another writer finishes, between two system calls
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", rename_then_fstat)
    TarWriter(part).close()
    assert finished.read_bytes() == b"kept"


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    writer = TarWriter(tmp_path / "x.part")
    writer.finish({}, tmp_path / "x.tar")
    assert (tmp_path / "x.tar").is_file()
