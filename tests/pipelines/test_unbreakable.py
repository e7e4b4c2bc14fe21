"""Broken videos, dead disks and signals: the job goes on, or stops cleanly with a list."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines import (
    AugmentConfig,
    EvalLoader,
    LoaderConfig,
    LoaderError,
    SamplingConfig,
    TrainLoader,
)
from pipelines.plan import replacement
from pipelines.source import FrameSource
from shards import Split, open_split

Hurt = Callable[[bytes], bytes]
ROOT = Path(__file__).resolve().parents[2]
SMALL = AugmentConfig(size=32, short_sides=(64, 80))


@pytest.fixture
def copy(split: Split, tmp_path: Path) -> Path:
    """A copy of the set that may be damaged; its split is called train."""
    shutil.copytree(split.root, tmp_path / "set")
    return tmp_path / "set"


def overwrite(split: Split, sample: int, hurt: Hurt, *, fix_crc: bool = False) -> None:
    """Change every frame of a sample by `hurt`, which keeps the length."""
    row = split.samples[sample]
    path = split.root / split.name / "frames.npy"
    frames = np.load(path)
    with open(split.tar_path(sample), "r+b") as file:
        for entry in frames[row["first_frame"] : row["first_frame"] + row["num_frames"]]:
            start, size = int(row["offset"]) + int(entry["offset"]), int(entry["size"])
            file.seek(start)
            data = hurt(file.read(size))
            assert len(data) == size
            file.seek(start)
            file.write(data)
            entry["crc32"] = zlib.crc32(data)
    if fix_crc:
        np.save(path, frames)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def zeroed(data: bytes) -> bytes:
    return bytes(40) + data[40:]


def other_size(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xc0") + 5, bytes([0, 40, 0, 40]))


def four_components(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xc0") + 9, b"\x09")


def without_end_of_header(data: bytes) -> bytes:
    return patched(data, 4, b"\xff\xff")


def bad_huffman_table(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xc4") + 5, b"\xff" * 16)


def bad_quantiser_table(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xdb") + 4, b"\x77")


def bad_scan(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xda") + 4, b"\x09")


def train(split: Split, **changes: object) -> TrainLoader:
    settings = {"seed": 5, "batch_size": 4, **changes}
    config = settings.pop("config", LoaderConfig(threads=1))
    return TrainLoader(split, SamplingConfig(), SMALL, config, **settings)  # type: ignore


def longest(split: Split) -> int:
    return int(np.argmax(split.samples["num_frames"]))


def check_replaced(
    clean: Split,
    damaged: Split,
    bad: set[int],
    tmp_path: Path,
    config: LoaderConfig = LoaderConfig(threads=1),  # noqa: B008  (frozen)
) -> list[str]:
    """An epoch of the damaged set differs from the clean one in the broken videos alone."""
    listed = tmp_path / "run" / "quarantine.jsonl"
    one = train(clean, config=config)
    other = train(damaged, config=config, quarantine=listed)
    reasons = {}
    for before, after in zip(one.epoch(0), other.epoch(0), strict=True):
        gone = {video: (stand_in, reason) for video, stand_in, reason in after.replaced}
        for row, video in enumerate(before.ids.tolist()):
            if video not in bad:
                assert after.ids[row] == video
                assert (after.clips[row] == before.clips[row]).all()
                continue
            stand_in, reason = gone[video]
            reasons[video] = reason
            chain = [replacement(video, attempt, len(damaged)) for attempt in range(20)]
            assert stand_in == next(other for other in chain if other not in bad)
            assert after.ids[row] == stand_in
            assert after.labels[row] == damaged.samples["label"][stand_in]
            assert after.clips[row].any()
            assert damaged.key(video) in reason
            assert str(damaged.tar_path(video)) in reason
    for loader in (one, other):
        loader.close()
    seen = bad & set(one.order(0)[:24].tolist())
    assert set(reasons) == seen
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {line["id"] for line in lines} >= seen
    assert len({line["id"] for line in lines}) == len(lines)
    return list(reasons.values())


def test_corrupt_bytes_are_caught_by_their_checksum(split, copy, tmp_path):
    damaged = open_split(copy, "train")
    bad = {longest(split), 3}
    for sample in bad:
        overwrite(damaged, sample, zeroed)
    reasons = check_replaced(split, open_split(copy, "train"), bad, tmp_path)
    assert all("CRC32" in reason for reason in reasons)


@pytest.mark.parametrize("hurt", [zeroed, other_size, four_components, without_end_of_header])
def test_headers_that_would_crash_dali_never_reach_it(split, copy, tmp_path, hurt):
    damaged = open_split(copy, "train")
    bad = {longest(split), 3, 4}
    for sample in bad:
        overwrite(damaged, sample, hurt, fix_crc=True)
    reasons = check_replaced(split, open_split(copy, "train"), bad, tmp_path)
    assert not any("CRC32" in reason for reason in reasons)


@pytest.mark.parametrize("hurt", [bad_huffman_table, bad_quantiser_table, bad_scan])
@pytest.mark.parametrize("roi", [True, False])
def test_what_dali_refuses_is_found_by_bisection(split, copy, tmp_path, hurt, roi):
    damaged = open_split(copy, "train")
    bad = {longest(split), 3, 4}
    for sample in bad:
        overwrite(damaged, sample, hurt, fix_crc=True)
    config = LoaderConfig(threads=2, roi_decode=roi)
    reasons = check_replaced(split, open_split(copy, "train"), bad, tmp_path, config)
    assert not any("CRC32" in reason for reason in reasons)


def test_a_shortened_tar(split, copy, tmp_path):
    damaged = open_split(copy, "train")
    path = damaged.tar_path(len(damaged) - 1)
    bad = set(np.flatnonzero(damaged.samples["tar"] == damaged.samples["tar"][-1]).tolist())
    first = int(damaged.samples["offset"][min(bad)])
    os.truncate(path, first + 100)
    reasons = check_replaced(split, damaged, bad, tmp_path)
    assert all("short read" in reason for reason in reasons)


def test_a_vanished_tar(split, copy, tmp_path):
    damaged = open_split(copy, "train")
    damaged.tar_path(0).unlink()
    bad = set(np.flatnonzero(damaged.samples["tar"] == 0).tolist())
    reasons = check_replaced(split, damaged, bad, tmp_path)
    assert all("No such file" in reason for reason in reasons)


def test_a_wrong_table(split, copy, tmp_path):
    path = copy / "train" / "frames.npy"
    frames = np.load(path)
    row = split.samples[longest(split)]
    frames["size"][row["first_frame"] : row["first_frame"] + row["num_frames"]] += 1 << 24
    np.save(path, frames)
    reasons = check_replaced(split, open_split(copy, "train"), {longest(split)}, tmp_path)
    assert all("points outside" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("hurt", "fix_crc"), [(zeroed, False), (zeroed, True), (bad_huffman_table, True)]
)
def test_evaluation_reports_and_never_replaces(split, copy, hurt, fix_crc):
    damaged = open_split(copy, "train")
    for sample in (0, 1, 2, 17):  # the whole first batch and one of another
        overwrite(damaged, sample, hurt, fix_crc=fix_crc)
    loader = EvalLoader(
        open_split(copy, "train"), SamplingConfig(), LoaderConfig(threads=1), batch_size=3,
        crop_size=32, resize_short=32,
    )  # fmt: skip
    ids, valid = [], []
    for batch in loader:
        ids += batch.ids.tolist()
        valid += batch.valid.tolist()
        assert not batch.clips[~batch.valid].any()
    assert ids == [*range(26), -1]
    assert [i for i, good in zip(ids, valid, strict=True) if not good] == [0, 1, 2, 17, -1]
    assert [video for video, _ in loader.missing] == [0, 1, 2, 17]
    assert all(damaged.key(video) in reason for video, reason in loader.missing)
    loader.close()


def test_too_many_broken_videos_stop_the_job_with_a_list(copy, tmp_path):
    damaged = open_split(copy, "train")
    for sample in range(len(damaged)):
        overwrite(damaged, sample, zeroed)
    listed = tmp_path / "quarantine.jsonl"
    loader = train(open_split(copy, "train"), quarantine=listed)
    with pytest.raises(LoaderError, match=r"9 videos are broken, more than the 8") as caught:
        list(loader.epoch(0))
    assert "CRC32" in str(caught.value)
    assert str(listed) in str(caught.value)
    assert len(listed.read_text().splitlines()) == 9
    loader.close()


def test_a_read_that_fails_in_passing_is_tried_again(split, monkeypatch):
    failures = iter([OSError(5, "Input/output error")] * 2)
    real = FrameSource.pread

    def flaky(self, path, offset, size):
        if (error := next(failures, None)) is not None:
            raise error
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameSource, "pread", flaky)
    loader = train(split)
    assert not any(batch.replaced for batch in loader.epoch(0))
    assert next(failures, None) is None
    loader.close()


def test_a_hanging_read_is_told_with_every_thread(split, monkeypatch, capfd):
    let_go = threading.Event()
    real = FrameSource.pread

    def hanging(self, path, offset, size):
        let_go.wait(20)
        return real(self, path, offset, size)

    monkeypatch.setattr(FrameSource, "pread", hanging)
    loader = train(split, config=LoaderConfig(threads=1, watchdog=0.5, hang=1.2))
    with pytest.raises(LoaderError, match=r"loader\.hang") as caught:
        next(loader.epoch(0))
    assert "loader-read-0: reading" in str(caught.value)
    said = capfd.readouterr().err
    assert "no batch for" in said
    assert "in hanging" in said  # the Python stack of the stuck thread
    assert str(split.tar_path(0).parent) in said
    let_go.set()
    loader.close()


def test_the_consumer_is_not_taken_for_a_hang(split, capfd):
    loader = train(split, config=LoaderConfig(threads=1, watchdog=0.3))
    for _ in loader.epoch(0):
        time.sleep(0.4)
    assert "no batch" not in capfd.readouterr().err
    loader.close()


SCRIPT = """
    import signal, sys, threading, time
    from pipelines import *
    from shards import open_split
    caught = []
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
            time.sleep(0.2)  # Python itself gives up its handlers when it ends
            break
"""


def start(split: Split, epochs: int, handle: bool = True) -> subprocess.Popen:
    script = textwrap.dedent(SCRIPT).format(root=str(split.root), epochs=epochs, handle=handle)
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_step_signals_change_nothing(split):
    process = start(split, 30)
    assert process.stdout is not None
    first = process.stdout.readline()
    done = threading.Event()

    def bombard() -> None:
        while not done.wait(0.005):
            process.send_signal(signal.SIGUSR1)

    bomber = threading.Thread(target=bombard)
    bomber.start()
    lines = [process.stdout.readline() for _ in range(29)]
    done.set()
    bomber.join()
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
def test_being_stopped_leaves_nothing_behind(split, number):
    process = start(split, -1)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    began = time.monotonic()
    process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == -number


def test_a_process_that_ends_amid_an_epoch_ends(split):
    script = textwrap.dedent(SCRIPT).format(root=str(split.root), epochs=1, handle=False)
    script = script.replace("total += int(batch.ids.sum())", "sys.exit(7)")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert not done.stderr


def test_threads_and_files_are_given_back(split):
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
