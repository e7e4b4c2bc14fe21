"""A source that a worker cannot open gets a verdict, and the others become samples."""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import replace

import pytest

from dsanet.limits import LimitError
from shards import ShardSettings, build_split
from shards.build.worker import add_with_verdict, find_read_error, limit_memory
from shards.errors import ShardUsageError
from shards.format.tars import TarWriter
from tests.alarm import alarm
from tests.scarcity import no_descriptors

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


def test_a_source_is_not_blamed_for_too_few_descriptors(small_set, tmp_path):
    tar = TarWriter(tmp_path / "a.tar")
    with no_descriptors(), pytest.raises(LimitError, match="RLIMIT_NOFILE"):
        add_with_verdict(small_set.sources[0], SETTINGS, tar)
    assert add_with_verdict(small_set.sources[0], SETTINGS, tar)["status"] == "ok"
    tar.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_source_is_not_blamed_for_a_full_disk(small_set, tmp_path, monkeypatch, number):
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    tar = TarWriter(tmp_path / "a.tar")
    monkeypatch.setattr("shards.format.tars.Window.write", fail)
    with pytest.raises(LimitError, match=f"{tmp_path}/a.tar: .* in {tmp_path}"):
        add_with_verdict(small_set.sources[0], SETTINGS, tar)
    tar.close()


def test_memory_of_a_worker_above_the_limit_of_the_shell_is_a_wrong_setting(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 30, 1 << 30))
    with pytest.raises(ShardUsageError, match="--memory-mb must be at most 1024, got 2048"):
        limit_memory(2048)
