"""Bounded copies: the size of a file, and the time without a byte."""

from __future__ import annotations

import io

import pytest

from pipelines.errors import LoaderError
from pipelines.read import transfer
from pipelines.read.thread_pool import StoppedError
from pipelines.read.transfer import StallFlag, blocks, run_copies


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16])
def test_a_file_is_read_up_to_its_size_and_no_further(monkeypatch, size):
    monkeypatch.setattr(transfer, "BLOCK", 8)
    data = bytes(range(size))
    for limit in (size, size + 1, size + 100):
        assert b"".join(blocks(io.BytesIO(data), limit, StallFlag(0), "x")) == data
    if size:
        source = io.BytesIO(data * 100)
        with pytest.raises(LoaderError, match=rf"^x: is longer than the {size} bytes"):
            b"".join(blocks(source, size, StallFlag(0), "x"))
        assert source.tell() <= size + 8


def test_only_the_time_without_a_byte_counts(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: now[0])
    flag, never = StallFlag(5), StallFlag(0)
    for _ in range(10):
        now[0] += 4
        assert not flag.is_set()
        flag.renew()
    now[0] += 6
    assert flag.is_set()
    flag.renew()  # a copy that has been given up is not taken up again
    assert flag.is_set()
    now[0] += 1e6
    assert not never.is_set()
    with pytest.raises(StoppedError):
        next(blocks(io.BytesIO(b"x"), 1, flag, "x"))


def test_after_a_failure_no_further_copy_begins():
    begun = []

    def copy(item: int, flag: StallFlag) -> None:
        begun.append(item)
        if item == 1:
            raise LoaderError("the second fails")

    with pytest.raises(LoaderError, match="the second fails"):
        run_copies(copy, list(range(50)), 1, 60, "numbers")
    assert begun == [0, 1]
