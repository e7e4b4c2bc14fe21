"""The source of the webdataset reader."""

from __future__ import annotations

import os
import shutil

import pytest

from pipelines import LoaderConfig, LoaderError
from shards import open_split
from tests.alarm import alarm
from tests.pipelines.loaders import train


def test_a_pipe_in_place_of_a_tar_is_refused_before_dali_waits_for_it(split, tmp_path):
    shutil.copytree(split.root, tmp_path / "set")
    copy = open_split(tmp_path / "set", "train")
    copy.tars[1].unlink()
    os.mkfifo(copy.tars[1])
    loader = train(copy, config=LoaderConfig(threads=1, reader="webdataset"))
    with alarm(), pytest.raises(LoaderError, match=f"{copy.tars[1]}: is not a regular file"):
        next(loader.epoch(0))
    loader.close()
