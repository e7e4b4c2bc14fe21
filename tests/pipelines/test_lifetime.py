"""Hanging disks, signals, forks and exits: the job goes on, or stops cleanly."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from pipelines import (
    LoaderConfig,
    LoaderError,
    OrderConfig,
)
from pipelines.read.frames import FrameReader, OpenFiles
from pipelines.resources import OutputsInUse
from pipelines.watchdog import Activity
from shards import Split
from tests.pipelines.loaders import train

ROOT = Path(__file__).resolve().parents[2]


def open_tars(split: Split) -> list[str]:
    """Tars of the split that this process has open."""
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    opened = [os.readlink(link) for link in links if link.is_symlink()]
    return [path for path in opened if Path(path) in split.tars]


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


SCRIPT = """
    import signal, sys, threading, time
    from pipelines import *
    from shards import open_split
    caught = []
    # A background job of a shell ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if {handle}:
        signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
    loader = TrainLoader(open_split({root!r}, "train"), SamplingConfig(),
                         AugmentConfig(size=32, short_sides=(64, 80)), LoaderConfig(threads=2),
                         seed=5, batch_size=4)
    epochs = 0
    total = 0
    while True:
        for batch in loader.epoch(epochs):
            total += int(batch.ids.sum())
        epochs += 1
        print(epochs, total, len(caught), flush=True)
        if epochs == {epochs}:
            time.sleep(0.2)  # Python drops its signal handlers when it exits
            break
"""


def start(split: Split, epochs: int, handle: bool = True) -> subprocess.Popen:
    script = textwrap.dedent(SCRIPT).format(root=str(split.root), epochs=epochs, handle=handle)
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_signals_change_no_batch(split):
    process = start(split, 30)
    assert process.stdout is not None
    first = process.stdout.readline()
    done = threading.Event()

    def send_signals() -> None:
        while not done.wait(0.005):
            process.send_signal(signal.SIGUSR1)

    sender = threading.Thread(target=send_signals)
    sender.start()
    lines = [process.stdout.readline() for _ in range(29)]
    done.set()
    sender.join()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    epochs, total, caught = map(int, lines[-1].split())
    assert caught > 5
    loader = train(split)
    expected = sum(int(loader.order(epoch)[:24].sum()) for epoch in range(30))
    assert (epochs, total) == (30, expected)
    assert first
    loader.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process(split, number):
    process = start(split, -1)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    began = time.monotonic()
    process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == -number


def test_a_process_can_exit_amid_an_epoch(split):
    script = textwrap.dedent(SCRIPT).format(root=str(split.root), epochs=1, handle=False)
    script = script.replace("total += int(batch.ids.sum())", "sys.exit(7)")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert not done.stderr


FORK = """
    import os, sys
    from pipelines import *
    from shards import open_split
    loader = TrainLoader(open_split({root!r}, "train"), SamplingConfig(),
                         AugmentConfig(size=32, short_sides=(64, 80)),
                         LoaderConfig(threads=2, reader={reader!r}), seed=5, batch_size=4)
    batches = loader.epoch(0)
    next(batches)
    child = os.fork()
    if child == 0:
        for attempt in (lambda: next(batches), lambda: next(loader.epoch(1))):
            try:
                attempt()
            except LoaderError as error:
                print(error)
        sys.stdout.flush()
        sys.exit(3)  # the ordinary way out, with all that Python and DALI do then
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(list(batches)))
    loader.close()
"""


@pytest.mark.parametrize("reader", ["frames", "webdataset"])
def test_a_forked_child_gets_an_error_and_can_exit(split, reader):
    script = textwrap.dedent(FORK).format(root=str(split.root), reader=reader)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert ["fork" in line for line in lines] == [True, True, False]
    assert lines[-1] == "3 5"


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
