"""Slow, failing and hanging disks: the job goes on, or stops cleanly."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pipelines import LoaderConfig, LoaderError, OrderConfig
from pipelines.read.frames import FrameReader
from tests.pipelines.loaders import open_tars, train


def test_a_transient_read_error_is_retried(split, monkeypatch):
    failures = iter([OSError(5, "Input/output error")] * 2)
    real = FrameReader.pread

    def flaky(self, path, offset, size):
        if (error := next(failures, None)) is not None:
            raise error
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameReader, "pread", flaky)
    loader = train(split)
    assert not any(batch.replaced for batch in loader.epoch(0))
    assert next(failures, None) is None
    loader.close()


def test_a_hang_is_reported_with_what_every_thread_does(split, monkeypatch, capfd):
    release = threading.Event()
    real = FrameReader.pread

    def hanging(self, path, offset, size):
        release.wait(20)
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameReader, "pread", hanging)
    loader = train(split, config=LoaderConfig(threads=1, watchdog=0.5, hang=1.2))
    with pytest.raises(LoaderError, match=r"loader\.hang") as caught:
        next(loader.epoch(0))
    assert "loader-read-0: reading" in str(caught.value)
    printed = capfd.readouterr().err
    assert "no batch for" in printed
    assert "in hanging" in printed  # the Python stack of the stuck thread
    assert str(split.tar_path(0).parent) in printed
    release.set()
    loader.close()


def test_a_slow_consumer_is_not_a_hang(split, capfd):
    loader = train(split, config=LoaderConfig(threads=1, watchdog=2.0))
    for number, _ in enumerate(loader.epoch(0)):
        time.sleep(2.5 if number == 1 else 0.0)
    assert "no batch" not in capfd.readouterr().err
    loader.close()


def test_close_ends_the_wait_of_a_consumer_in_another_thread(split, monkeypatch):
    reading, release = threading.Event(), threading.Event()
    real = FrameReader.pread

    def hanging(self, path, offset, size):
        reading.set()
        release.wait(20)
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameReader, "pread", hanging)
    loader = train(split)
    errors: list[BaseException] = []

    def consume() -> None:
        try:
            next(loader.epoch(0))
        except LoaderError as error:
            errors.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert reading.wait(10)
    threading.Timer(0.3, release.set).start()
    loader.close()
    consumer.join(10)
    assert not consumer.is_alive()
    assert "ended" in str(errors[0])


def native_threads() -> int:
    """Threads of this process, those of DALI's graphs among them."""
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("kind", ["random", "blocked"])
@pytest.mark.parametrize("seconds", [0.5, 60.0])
def test_close_returns_within_a_second_on_a_slow_disk(split, monkeypatch, kind, seconds):
    train(split).close()
    before = native_threads()
    real, reads = FrameReader.pread, []
    slow_read, release = threading.Event(), threading.Event()

    def slow(self, path, offset, size):
        reads.append(path)
        if len(reads) > 4:
            slow_read.set()
            release.wait(seconds)
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameReader, "pread", slow)
    order = OrderConfig(kind)  # type: ignore[arg-type]
    config = LoaderConfig(threads=1, read_threads=3, order=order, gap_kb=8192)
    loader = train(split, config=config)
    epoch = loader.epoch(0)
    next(epoch)
    assert slow_read.wait(30)
    began = time.monotonic()
    loader.close()
    elapsed = time.monotonic() - began
    left = {thread.name for thread in threading.enumerate()}
    release.set()
    assert elapsed < 1
    assert not left & {"loader-source", "loader-dali", "loader-ahead"}
    assert len(reads) <= 4 + 3
    deadline = time.monotonic() + 10
    while native_threads() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert native_threads() <= before
    assert not open_tars(split)


def test_closing_a_blocked_loader_in_mid_read_ends_its_threads(split, monkeypatch):
    real, reading = FrameReader.pread, threading.Event()

    def slow(self, path, offset, size):
        reading.set()
        time.sleep(0.02)
        return real(self, path, offset, size)

    loader = train(split, config=LoaderConfig(threads=1, order=OrderConfig("blocked"), ahead_mb=1))
    next(loader.epoch(0))
    monkeypatch.setattr(FrameReader, "pread", slow)
    batches = loader.epoch(1)
    errors: list[BaseException] = []

    def consume() -> None:
        try:
            next(batches)
        except LoaderError as error:
            errors.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert reading.wait(10)
    loader.close()
    consumer.join(10)
    assert "ended" in str(errors[0])
    assert not [thread for thread in threading.enumerate() if thread.name == "loader-ahead"]
    deadline = time.monotonic() + 5  # the read under way is left to its thread
    while open_tars(split) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not open_tars(split)
