"""Reads of frames: neighbouring ones are merged."""

from __future__ import annotations

import copy
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from pipelines.read.frames import FrameReader, OpenFiles, limit_of_open_files, merged
from pipelines.watchdog import Activity


def test_merging_of_reads():
    offsets, sizes = np.array([0, 10, 30, 31, 90]), np.array([10, 5, 1, 9, 10])
    assert list(merged(offsets, sizes, 0)) == [(0, 1), (2, 3), (4, 4)]
    assert list(merged(offsets, sizes, 15)) == [(0, 3), (4, 4)]
    assert list(merged(offsets, sizes, 100)) == [(0, 4)]


def test_one_read_per_snippet(split):
    long = int(np.argmax(split.samples["num_frames"]))
    frames = np.array([0, 8, 16, 24, 100, 108, 116, 124])
    counts = {}
    for gap in (0, 16 << 10, 1 << 30):
        source = FrameReader(split, Activity(), threads=1, gap=gap)
        pieces = source.fetch([long], [frames])[0]
        counts[gap] = source.meter.reads
        assert len(pieces) == 8
        source.close()
    assert list(counts.values()) == [8, 2, 1]


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
