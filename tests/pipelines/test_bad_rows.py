"""Rows that are wrong although the set could be opened: each costs one video, never the job."""

from __future__ import annotations

import copy
import os
import struct

import numpy as np
import pytest

from pipelines import LoaderConfig, LoaderError
from pipelines.read.frames import MAX_FRAME, FrameReader, SampleError
from pipelines.read.gops import ContainerReader, PyavReader
from pipelines.watchdog import Activity
from shards import Split
from tests.pipelines.loaders import ONE, train


def changed(split: Split, table: str, rows: object, **values: object) -> Split:
    """The split with other values in one of its arrays, as a failing disk would have it."""
    other = copy.copy(split)
    array = getattr(split, table).copy()
    for field, value in values.items():
        array[field][rows] = value
    setattr(other, table, array)
    return other


def replaced(split: Split, config: LoaderConfig = ONE, epochs: int = 1) -> dict[int, str]:
    """The videos that are replaced in so many epochs, with the reasons."""
    loader = train(split, config=config)
    found = {}
    for epoch in range(epochs):
        for batch in loader.epoch(epoch):
            assert batch.clips.any(dim=tuple(range(1, batch.clips.ndim))).all()
            found |= {video: reason for video, _, reason in batch.replaced}
    loader.close()
    return found


def first(split: Split) -> int:
    """A video of the first batch."""
    loader = train(split)
    loader.close()
    return int(loader.order(0)[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("offset", 2**63 - 1), ("offset", -1), ("offset", -(2**63)), ("size", 0), ("size", -5),
        ("tar", 99), ("tar", -99), ("tar", 2**31 - 1), ("first_frame", 2**63 - 1),
        ("first_frame", -(2**63)), ("num_frames", 2**31 - 1), ("width", 2), ("height", 60_000),
    ],
)  # fmt: skip
def test_any_value_of_a_row_is_quarantined(split, field, value):
    bad = first(split)
    reasons = replaced(changed(split, "samples", bad, **{field: value}))
    assert list(reasons) == [bad]
    assert split.key(bad) in reasons[bad]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), OverflowError("x"), struct.error("x"), KeyError("x"), TypeError("x"),
        ZeroDivisionError("x"), AssertionError(), RecursionError("x"), EOFError(), OSError("x"),
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "x"), ValueError("two\nlines \x1b[1m"),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("method", ["_table", "_fault"])
def test_any_exception_of_a_video_is_its_own(split, monkeypatch, method, error):
    monkeypatch.setattr("pipelines.read.frames.RETRY_DELAY", 0.0)
    bad, real = first(split), getattr(FrameReader, method)

    def fail(self, sample, *more):
        if sample == bad:
            raise error
        return real(self, sample, *more)

    monkeypatch.setattr(FrameReader, method, fail)
    reader = FrameReader(split, Activity(), threads=2)
    good, result = reader.fetch([bad ^ 1, bad], [np.array([0])] * 2)
    reader.close()
    assert not isinstance(good, SampleError)
    assert isinstance(result, SampleError)
    assert split.key(bad) in str(result)
    assert str(result).isprintable()


def test_too_little_memory_is_no_fault_of_a_video(split, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(FrameReader, "_table", fail)
    reader = FrameReader(split, Activity(), threads=1)
    with pytest.raises((MemoryError, LoaderError)):
        reader.fetch([0], [np.array([0])])
    reader.close()


def test_a_frame_of_4_gib_is_refused_before_memory_is_taken(split, monkeypatch):
    bad = first(split)
    row = split.samples[bad]
    rows = slice(row["first_frame"], row["first_frame"] + row["num_frames"])
    huge = changed(split, "frames", rows, size=2**32 - 1)
    huge = changed(huge, "samples", bad, size=2**62)  # so that it fits its sample
    sizes, real = [], os.pread

    def record(descriptor: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", record)
    reasons = replaced(huge)
    assert list(reasons) == [bad]
    assert f"a frame of {2**32 - 1} bytes is more than {MAX_FRAME}" in reasons[bad]
    assert max(sizes) < 1 << 20


@pytest.mark.parametrize("reader_type", [ContainerReader, PyavReader])
def test_fragments_of_any_value_are_quarantined(split_of, reader_type):
    split, rng = split_of("h264"), np.random.default_rng(0)
    long = int(np.argmax(split.samples["num_frames"]))
    row = split.samples[long]
    rows = slice(row["first_fragment"], row["first_fragment"] + row["num_fragments"] + 1)
    ends = split.fragments[rows]
    odd = [
        ends * 0,
        ends[::-1],
        np.full_like(ends, 2**32 - 1),
        np.sort(rng.integers(0, ends[-1], len(ends))),
    ]
    for values in [*odd, *(rng.integers(0, 2**32, len(ends)) for _ in range(10))]:
        other = copy.copy(split)
        other.fragments = split.fragments.copy()
        other.fragments[rows] = values
        reader = reader_type(other, Activity(), threads=1)
        views = [np.array([0, 5]), np.array([40, 41])]
        assert all(isinstance(r, SampleError) for r in reader.fetch([long, long], views))
        assert isinstance(reader.fetch([long], views[1:])[0], SampleError)
        reader.close()


@pytest.mark.parametrize("codec", ["h264", "vp9"])  # decoded by PyAV and by DALI
def test_a_video_of_another_size_than_the_index_has_is_quarantined(split_of, codec):
    split = split_of(codec)
    bad = first(split)
    larger = changed(split, "samples", bad, width=640, height=480)
    reasons = replaced(larger, epochs=3)  # some crops fit by chance where DALI decodes
    assert list(reasons) == [bad]
    assert split.key(bad) in reasons[bad]
