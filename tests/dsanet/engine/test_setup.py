"""The parts of a run are built, or an error says which setting to change."""

from __future__ import annotations

import pytest

from dsanet.engine.command_line import parse_train
from dsanet.engine.setup import open_splits
from shards import ShardError


def test_a_missing_validation_split_names_the_way_without_one(small_shards, tmp_path):
    arguments = ["--recipe", "demo", "--data", str(small_shards), "--out", str(tmp_path)]
    config = parse_train([*arguments, "--validation.split", "test"])
    with pytest.raises(ShardError, match=r"no split 'test'.*give --validation\.split null"):
        open_splits(config)
    train, val = open_splits(parse_train([*arguments, "--validation.split", "null"]))
    assert train.name == "train"
    assert val is None


def test_a_missing_training_split_has_no_such_remedy(small_shards, tmp_path):
    arguments = ["--recipe", "demo", "--data", str(small_shards), "--out", str(tmp_path)]
    with pytest.raises(ShardError, match="no split 'none'") as caught:
        open_splits(parse_train([*arguments, "--split", "none"]))
    assert "null" not in str(caught.value)
