"""Too few descriptors, threads or memory are never taken for broken videos or a damaged set."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from dsanet.limits import LimitError
from pipelines.read import frames
from pipelines.read.frames import FrameReader
from pipelines.watchdog import Activity
from shards import open_split
from shards.build.state import BuildState
from shards.format.side_files import scan_tar
from tests.pipelines.loaders import train
from tests.scarcity import no_descriptors


def test_a_reader_without_descriptors_blames_no_video(split, monkeypatch):
    monkeypatch.setattr(frames, "RETRY_DELAY", 0.01)
    reader = FrameReader(split, Activity(), threads=1)
    with no_descriptors() as limit, pytest.raises(LimitError, match=f"may have {limit} "):
        reader.fetch([0], [np.array([0])])
    (pieces,) = reader.fetch([0], [np.array([0])])  # as soon as there are some
    assert len(pieces) == 1
    reader.close()


def test_a_set_that_cannot_be_opened_for_want_of_descriptors_is_not_called_damaged(split):
    state = BuildState(split.root / "train")
    for action in (
        lambda: open_split(split.root, "train"),
        lambda: scan_tar(split.tars[0]),
        lambda: state.is_finished(split.tars[0].name),
    ):
        with no_descriptors(), pytest.raises(LimitError, match="RLIMIT_NOFILE"):
            action()


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MemoryError(), MemoryError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), LimitError),
        (OSError(errno.EMFILE, "Too many open files"), LimitError),
        (RuntimeError("can't start new thread"), LimitError),
    ],
)
def test_training_without_memory_or_threads_lists_no_video(
    split, tmp_path, monkeypatch, error, raised
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(frames, "RETRY_DELAY", 0.01)
    monkeypatch.setattr(FrameReader, "pread", fail)
    loader = train(split, quarantine=tmp_path / "quarantine.jsonl")
    with pytest.raises(raised):
        next(loader.epoch(0))
    loader.close()
    assert not (tmp_path / "quarantine.jsonl").exists()
    assert not loader.quarantine.reasons


def test_an_error_of_a_disk_is_still_one_of_a_video(split, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(frames, "RETRY_DELAY", 0.01)
    monkeypatch.setattr(FrameReader, "pread", fail)
    reader = FrameReader(split, Activity(), threads=1)
    (fault,) = reader.fetch([0], [np.array([0])])
    reader.close()
    assert isinstance(fault, frames.SampleError)
