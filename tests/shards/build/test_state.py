"""The state of a build on disk: damaged files, tasks that start together, merge and reindex."""

from __future__ import annotations

import os

import pytest

from shards import ShardError, ShardSettings, build_split
from shards.build.state import BuildState, reindex
from shards.format.manifest import write_json

SETTINGS = ShardSettings(workers=1)


CLASSES = ["one", "two"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"split": "train"}'])
def test_a_garbled_plan_names_the_remedy(copy, small_set, text):
    (copy / ".build" / "plan.json").write_text(text)
    with pytest.raises(ShardError, match=r"plan.json is damaged; delete it"):
        build_split(small_set.sources, copy.parent, "train", CLASSES, SETTINGS)
    (copy / ".build" / "plan.json").unlink()
    assert build_split(small_set.sources, copy.parent, "train", CLASSES, SETTINGS).ok == 3


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_garbled_state_of_a_tar_means_writing_it_again(copy, small_set, text):
    (memory,) = (copy / ".build").glob("*.tar.json")
    before = memory.read_bytes()
    memory.write_text(text)
    assert build_split(small_set.sources, copy.parent, "train", CLASSES, SETTINGS).ok == 3
    assert memory.read_bytes() == before


def test_the_same_command_writes_a_tar_again_that_was_cut_off(copy, small_set):
    (path,) = copy.glob("*.tar")
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)
    assert build_split(small_set.sources, copy.parent, "train", CLASSES, SETTINGS).ok == 3
    assert path.read_bytes() == whole


def test_a_damaged_tar_says_what_to_do(copy, small_set):
    (path,) = copy.glob("*.tar")
    whole = path.read_bytes()
    path.write_bytes(b"x" * 512 + whole[512:])
    with pytest.raises(ShardError, match="delete it and run the same command"):
        reindex(copy)
    path.unlink()
    assert build_split(small_set.sources, copy.parent, "train", CLASSES, SETTINGS).ok == 3
    assert path.read_bytes() == whole


def test_tasks_that_begin_together_write_plans_of_their_own(tmp_path, monkeypatch):
    record = {"split": "s", "settings": {}, "versions": {"av": 1}, "fingerprint": "f", "tars": 1}
    written = []

    def record_write(path, data):
        written.append(path.name)
        write_json(path, data)

    monkeypatch.setattr("shards.build.state.write_json", record_write)
    BuildState(tmp_path).open(record)
    BuildState(tmp_path).open(record)
    assert len(written) == 1
    assert str(os.getpid()) in written[0]
    assert BuildState(tmp_path).read_record() == record
    assert [p.name for p in (tmp_path / ".build").iterdir()] == ["plan.json"]
