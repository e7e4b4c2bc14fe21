"""Open tars: each is opened once, and none keeps the others from being opened or closed."""

from __future__ import annotations

import copy
import os
import resource
import threading
from pathlib import Path

import pytest

from pipelines.read import open_files
from pipelines.read.frames import FrameReader
from pipelines.read.open_files import OpenFiles, limit_of_open_files
from pipelines.watchdog import Activity
from tests.alarm import alarm


def make_files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.tar" for number in range(count)]
    for path in paths:
        path.write_bytes(b"x")
    return paths


def test_each_of_many_tars_is_opened_once(split, tmp_path, monkeypatch):
    many = copy.copy(split)
    many.tars = make_files(tmp_path, 200)
    opened, real = [], os.open

    def record(path, *arguments, **more):
        opened.append(path)
        return real(path, *arguments, **more)

    reader = FrameReader(many, Activity(), threads=1)
    monkeypatch.setattr(os, "open", record)
    for path in many.tars * 2:
        reader.pread(path, 0, 1)
    monkeypatch.undo()
    reader.close()
    assert sorted(opened) == sorted(many.tars)


@pytest.mark.parametrize(
    ("limits", "raised", "expected"),
    [
        ((1024, 524288), 8012, 3750),
        ((1024, 4096), 4096, 1792),
        ((1024, 1024), None, 256),
        ((256, 256), None, 16),
        ((1024, resource.RLIM_INFINITY), 8012, 3750),
        ((20000, 20000), None, 3750),
    ],
)
def test_the_limit_of_open_files_follows_that_of_the_process(monkeypatch, limits, raised, expected):
    chosen = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, new: chosen.append(new))
    assert limit_of_open_files(3750) == expected
    assert chosen == ([(raised, limits[1])] if raised else [])


def test_files_are_closed_where_the_process_runs_out_of_descriptors(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(int(name) for name in os.listdir("/proc/self/fd")) + 30
    paths = make_files(tmp_path, limit)
    files = OpenFiles(random=False, limit=limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        for path in paths * 2:
            assert os.pread(files.acquire(path), 1, 0) == b"x"
            files.release(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        files.close()


def test_files_in_use_stay_open_until_they_are_released(split):
    files = OpenFiles(random=True)
    descriptor = files.acquire(split.tars[0])  # as a read does that is under way
    files.close()
    assert os.fstat(descriptor)  # no other file may get this number
    files.release(split.tars[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with pytest.raises(OSError, match="closed"):
        files.acquire(split.tars[0])


def test_an_open_that_hangs_holds_up_no_other_file_and_no_close(tmp_path, monkeypatch):
    dead, other = make_files(tmp_path, 2)
    opening, answer, real = threading.Event(), threading.Event(), open_files.open_descriptor
    errors: list[OSError] = []

    def hanging(path):
        if path == dead:
            opening.set()
            answer.wait(30)
        return real(path)

    def use() -> None:
        try:
            files.acquire(dead)
        except OSError as error:
            errors.append(error)

    monkeypatch.setattr(open_files, "open_descriptor", hanging)
    files = OpenFiles(random=True)
    thread = threading.Thread(target=use)
    thread.start()
    assert opening.wait(10)
    descriptors = len(os.listdir("/proc/self/fd"))
    with alarm():
        assert os.pread(files.acquire(other), 1, 0) == b"x"
        files.release(other)
        files.close()
    answer.set()  # the disk answers, too late
    thread.join(10)
    assert "closed" in str(errors[0])
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_tar_that_two_threads_open_at_once_is_kept_open_once(tmp_path, monkeypatch):
    (path,) = make_files(tmp_path, 1)
    together, real = threading.Barrier(2, timeout=20), open_files.open_descriptor
    got: list[int] = []

    def open_together(path):
        together.wait()
        return real(path)

    monkeypatch.setattr(open_files, "open_descriptor", open_together)
    files = OpenFiles(random=True)
    descriptors = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=lambda: got.append(files.acquire(path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got[0] == got[1]
    assert len(os.listdir("/proc/self/fd")) == descriptors + 1
    files.release(path)
    files.close()
    assert os.fstat(got[0])  # the other thread still reads
    files.release(path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(got[0])


def test_a_tar_that_is_a_pipe_is_an_unreadable_video(split, tmp_path):
    pipe = copy.copy(split)
    os.mkfifo(tmp_path / "a.tar")
    pipe.tars = [tmp_path / "a.tar"] * len(split.tars)
    reader = FrameReader(pipe, Activity(), threads=1)
    with alarm():
        (fault,) = reader.fetch([0], [[0]])
        reader.close()
    assert "named pipe" in str(fault)
