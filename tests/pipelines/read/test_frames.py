"""Reads of frames: neighbouring ones are merged."""

from __future__ import annotations

import numpy as np

from pipelines.read.frames import FrameReader, merged
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
