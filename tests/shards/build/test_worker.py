"""A source that a worker cannot open gets a verdict, and the others become samples."""

from __future__ import annotations

import os
from dataclasses import replace

from shards import ShardSettings, build_split
from shards.build.worker import find_read_error
from tests.alarm import alarm

SETTINGS = ShardSettings(workers=1)


CLASSES = ["one", "two"]


def test_a_path_with_a_nul_is_refused_and_the_rest_goes_on(small_set, tmp_path):
    odd = replace(small_set.sources[0], path=small_set.videos / "a\0b.mp4", key="odd")
    report = build_split([odd, *small_set.sources], tmp_path, "train", CLASSES, SETTINGS)
    assert report.exit_code == 3
    assert [(v["key"], v["status"], v["kind"]) for v in report.refused] == [
        ("odd", "refused", "path")
    ]


def test_holes_are_not_read_in_the_search_for_a_failing_disk(tmp_path, monkeypatch):
    path, counted, real = tmp_path / "a.mp4", [], os.read

    def count(descriptor: int, size: int) -> bytes:
        counted.append(len(data := real(descriptor, size)))
        return data

    with open(path, "wb") as file:
        for offset in (0, 1 << 38, 1 << 40):
            file.seek(offset)
            file.write(b"x" * 70000)
        file.truncate(1 << 42)
    monkeypatch.setattr(os, "read", count)
    with alarm(60):
        assert find_read_error(path) == ""
    assert 210000 <= sum(counted) < 1 << 20
