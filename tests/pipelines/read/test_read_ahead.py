"""Reading ahead in blocked order."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from pipelines import LoaderConfig, OrderConfig
from pipelines.read.frames import FrameReader
from pipelines.read.read_ahead import grouped
from pipelines.train_loader import batches_ahead
from shards import Split, open_split
from tests.pipelines.loaders import batches, same, train


@pytest.fixture
def copy(split: Split, tmp_path: Path) -> Split:
    """A copy of the set that may be taken away."""
    shutil.copytree(split.root, tmp_path / "far" / "set")
    return open_split(tmp_path / "far" / "set", "train")


@pytest.mark.parametrize("ahead_mb", [1, 2048])
def test_blocked_reading_gives_the_batches_of_the_plan(split, ahead_mb):
    order = OrderConfig("blocked", block=3, window=2)
    config = LoaderConfig(threads=1, order=order, ahead_mb=ahead_mb)
    ahead = train(split, config=config)
    plain = train(split, config=config)
    plain.source.ahead = 0  # the same order, read batch by batch
    whole = batches(ahead)
    assert same(whole, batches(plain))
    assert same(whole[2:], batches(train(split, config=config), start=8))


def test_groups_grow_from_one_batch():
    assert [len(group) for group in grouped(iter([None] * 20), 6)] == [1, 2, 4, 6, 6, 1]


def test_the_first_batch_waits_for_the_reads_of_no_other_batch(split, monkeypatch):
    real, permits = FrameReader.pread, threading.Semaphore(4)  # a batch has four videos

    def throttled(self, path, offset, size):
        assert permits.acquire(timeout=60)
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameReader, "pread", throttled)
    config = LoaderConfig(threads=1, order=OrderConfig("blocked"), watchdog=2, hang=3)
    loader = train(split, config=config)
    assert batches_ahead(loader.plans, config) >= len(loader) == 6
    epoch = loader.epoch(0)
    first = next(epoch)
    assert first.ids.tolist() == loader.order(0)[:4].tolist()
    permits.release(20)
    assert len(list(epoch)) == 5
    loader.close()


def test_each_group_is_read_in_storage_order(split, monkeypatch):
    reads = []
    real = FrameReader.pread

    def record(self, path, offset, size):
        reads.append((str(path), offset, size))
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameReader, "pread", record)
    config = LoaderConfig(threads=1, read_threads=1, order=OrderConfig("blocked", block=0))
    loader = train(split, config=config)
    assert batches_ahead(loader.plans, config) >= len(loader)
    batches(loader)
    assert len(reads) == 24  # one for each video
    for group in (reads[:4], reads[4:12], reads[12:]):
        assert group == sorted(group)


def test_broken_videos_in_blocked_order(copy):
    copy.tars[0].unlink()
    config = LoaderConfig(threads=1, order=OrderConfig("blocked", block=2))
    loader = train(copy, config=config)
    replaced = [entry for batch in loader.epoch(0) for entry in batch.replaced]
    lost = set(np.flatnonzero(copy.samples["tar"] == 0).tolist())
    assert {entry[0] for entry in replaced} == lost & set(loader.order(0)[:24].tolist())
    loader.close()


def test_an_epoch_of_blocked_order_left_early_ends_its_threads(split):
    config = LoaderConfig(threads=1, order=OrderConfig("blocked"), ahead_mb=1)
    loader = train(split, config=config)
    next(loader.epoch(0))
    loader.close()
    for thread in threading.enumerate():
        if thread.name == "loader-ahead":
            thread.join(5)
            assert not thread.is_alive()
