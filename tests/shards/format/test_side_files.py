"""Side files cut off or garbled, two writers of one file, and lists that no one means."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import replace

import pytest

from shards import ShardError, ShardSettings, build_split, open_split
from shards.build.split import Report
from shards.build.state import BuildState, reindex
from shards.build.verify import verify_split
from shards.format import tars as tars_module
from shards.format.manifest import read_manifest, write_json
from shards.format.tars import TarWriter

SETTINGS = ShardSettings(workers=1)
CLASSES = ["one", "two"]


@pytest.fixture
def copy(small_set, tmp_path):
    """A copy of the small set's split that may be damaged."""
    shutil.copytree(small_set.root / "train", tmp_path / "train")
    return tmp_path / "train"


@pytest.mark.parametrize("name", ["samples", "frames", "keys", "labels", "fragments"])
def test_an_empty_array_names_the_remedy(copy, name):
    (copy / f"{name}.npy").write_bytes(b"")
    with pytest.raises(ShardError, match=r"reindex"):
        open_split(copy.parent, "train")


def change(manifest: dict, *path: str | int, to: object) -> dict:
    """A deep copy of a JSON object with the entry at `path` exchanged."""
    changed = json.loads(json.dumps(manifest))
    *parents, last = path
    place = changed
    for step in parents:
        place = place[step]
    place[last] = to
    return changed


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("counts",), None),
        (("counts", "samples"), "3"),
        (("tars",), {"a": 1}),
        (("tars", 0, "name"), 5),
        (("settings",), []),
        (("classes",), "one"),
    ],
)
def test_an_odd_manifest_names_the_remedy(copy, path, to):
    write_json(copy / "manifest.json", change(read_manifest(copy), *path, to=to))
    with pytest.raises(ShardError, match="reindex"):
        open_split(copy.parent, "train")


@pytest.mark.parametrize("text", ["", "[]", "3", "{"])
def test_a_garbled_manifest_names_the_remedy(copy, text):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ShardError, match="reindex"):
        open_split(copy.parent, "train")
    reindex(copy)
    assert len(open_split(copy.parent, "train")) == 3


def test_an_odd_index_of_a_tar_is_a_fault(copy):
    (path,) = copy.glob("*.idx")
    path.write_bytes(b"\xff\xfe\x00")
    assert "is missing or wrong; reindex" in verify_split(copy, 1)[0]


@pytest.mark.parametrize("workers", [0, -2])
def test_verify_needs_a_worker(copy, workers):
    with pytest.raises(ShardError, match="workers must be at least 1") as caught:
        verify_split(copy, workers)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"split": "train"}'])
def test_a_garbled_plan_names_the_remedy(copy, small_set, text):
    (copy / ".build" / "plan.json").write_text(text)
    with pytest.raises(ShardError, match=r"plan.json is damaged; delete it"):
        build_split(small_set.sources, copy.parent, "train", CLASSES, SETTINGS)
    (copy / ".build" / "plan.json").unlink()
    assert build_split(small_set.sources, copy.parent, "train", CLASSES, SETTINGS).ok == 3


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_garbled_memory_of_a_tar_means_writing_it_again(copy, small_set, text):
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


def test_two_writers_of_one_tar_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(tars_module, "LOCK_TIMEOUT", 0.1)
    first = TarWriter(tmp_path / "x.part")
    first.add("a", b"kept")
    first.flush()
    with pytest.raises(ShardError, match=r"x\.part: another process is writing"):
        TarWriter(tmp_path / "x.part")
    assert b"kept" in (tmp_path / "x.part").read_bytes()
    first.finish({}, tmp_path / "x.tar")
    second = TarWriter(tmp_path / "x.part")  # a new file: the finished one is left alone
    second.close()
    assert b"kept" in (tmp_path / "x.tar").read_bytes()


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    writer = TarWriter(tmp_path / "x.part")
    writer.finish({}, tmp_path / "x.tar")
    assert (tmp_path / "x.tar").is_file()


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


def test_a_share_without_a_good_video_is_not_a_failure(tmp_path):
    bad = [{"status": "refused", "kind": "corrupt"}]
    assert Report(tmp_path, bad).exit_code == 1
    assert Report(tmp_path, bad, share=True).exit_code == 3


def test_a_path_with_a_nul_is_refused_and_the_rest_goes_on(small_set, tmp_path):
    odd = replace(small_set.sources[0], path=small_set.videos / "a\0b.mp4", key="odd")
    report = build_split([odd, *small_set.sources], tmp_path, "train", CLASSES, SETTINGS)
    assert report.exit_code == 3
    assert [(v["key"], v["status"], v["kind"]) for v in report.refused] == [
        ("odd", "refused", "path")
    ]
