"""What a loader owns is freed when it is closed or dropped; one epoch at a time."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref

import numpy as np
import pytest

from pipelines import LoaderConfig, LoaderError
from pipelines.read.frames import FrameReader
from pipelines.resources import OutputsInUse
from pipelines.watchdog import Activity
from tests.pipelines.loaders import open_tars, train


@pytest.mark.parametrize("reader", ["frames", "webdataset"])
def test_the_iterator_of_an_older_epoch_raises_at_once(split, reader):
    loader = train(split, config=LoaderConfig(threads=1, reader=reader))
    old = loader.epoch(0)
    next(old)
    new = loader.epoch(1)
    next(new)
    began = time.monotonic()
    with pytest.raises(LoaderError, match="epoch has ended"):
        next(old)
    assert len(list(new)) == 5
    last = loader.epoch(2)
    next(last)
    loader.close()
    with pytest.raises(LoaderError, match="was closed"):
        next(last)
    with pytest.raises(LoaderError, match="loader is closed"):
        next(loader.epoch(3))
    assert time.monotonic() - began < 15


def test_an_epoch_begun_amid_another_gives_all_of_its_batches(split):
    config = LoaderConfig(threads=1, reader="webdataset", prefetch=1)
    loader = train(split, config=config, batch_size=1)
    expected = [batch.ids.tolist() for batch in loader.epoch(1)]
    old = loader.epoch(0)
    next(old)
    new = loader.epoch(1)  # the threads of the old epoch are still reading
    next(old)
    assert [batch.ids.tolist() for batch in new] == expected
    loader.close()


def test_a_loader_that_is_never_closed_leaves_no_threads(split):
    def names() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("loader-")]

    before = len(names())
    for reader in ("frames", "webdataset"):
        loader = train(split, config=LoaderConfig(threads=1, reader=reader))
        batches = loader.epoch(0)
        next(batches)
        del loader, batches
        gc.collect()
    deadline = time.monotonic() + 5
    while len(names()) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(names()) <= before


def test_two_loaders_at_once(split):
    one, other = train(split), train(split, config=LoaderConfig(threads=1, reader="webdataset"))
    single = train(split)
    expected = [batch.clips for batch in single.epoch(0)]
    for clips, first, second in zip(expected, one.epoch(0), other.epoch(0), strict=True):
        assert (first.clips == clips).all()
        assert second.clips.any()
    for loader in (one, other, single):
        loader.close()


def test_close_frees_threads_and_files(split):
    def count() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    loader = train(split)
    next(loader.epoch(0))
    loader.close()
    time.sleep(0.5)
    before = count()
    for _ in range(3):
        loader = train(split)
        next(loader.epoch(0))
        loader.close()
    deadline = time.monotonic() + 5
    while count() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert count() <= before


class Event:
    """An event on a stream."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done


def test_outputs_stay_until_the_work_of_a_consumer_one_batch_ahead_has_ended():
    kept, events = OutputsInUse(), [Event() for _ in range(5)]
    outputs = [Event() for _ in range(5)]  # anything that can be watched
    alive = [weakref.ref(output) for output in outputs]
    for number, event in enumerate(events):
        kept.add(event, outputs.pop(0))  # type: ignore[arg-type]
        if number < 2:
            event.done = True  # before the consumer launches its work on batch 0
    assert [ref() is not None for ref in alive] == [True] * 5
    events[2].done = True  # work launched before batch 2 was asked for: that on batch 0
    kept.add(Event(), object())  # type: ignore[arg-type]
    assert [ref() is not None for ref in alive] == [False] + [True] * 4


def test_a_closed_reader_reads_nothing(split):
    reader = FrameReader(split, Activity(), threads=1)
    reader.fetch([0], [np.array([0])])
    reader.close()
    assert not open_tars(split)
    with pytest.raises(RuntimeError, match="closed"):
        reader.fetch([0], [np.array([0])])
