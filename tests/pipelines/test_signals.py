"""Signals, exits and forks amid an epoch: the job goes on, or stops cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from shards import Split
from tests.pipelines.loaders import train

ROOT = Path(__file__).resolve().parents[2]


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
