"""A manifest that is damaged, odd or of another version names the remedy."""

from __future__ import annotations

import json
import os

import pytest

from shards import ShardError, open_split
from shards.build.state import reindex
from shards.build.verify import verify_split
from shards.format.manifest import find_splits, read_manifest, write_json
from tests.alarm import alarm


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "update the project"),
        ({"version": None}, "format version is missing"),
        ({"format": "other"}, "not the manifest of a shard set"),
    ],
)
def test_other_versions_are_refused_with_the_remedy(copy, change, message):
    write_json(copy / "manifest.json", read_manifest(copy) | change)
    with pytest.raises(ShardError, match=message):
        open_split(copy.parent, "train")


def test_splits_are_found_by_set_or_by_name(copy, tmp_path):
    assert find_splits(tmp_path) == [copy]
    assert find_splits(copy) == [copy]
    with pytest.raises(ShardError, match="no such folder"):
        find_splits(tmp_path / "none")


@pytest.mark.parametrize(
    ("root", "name", "message"),
    [
        ("nowhere", "train", "no such folder"),
        (".", "test", "no split 'test', it has train"),
        ("train", "train", "train is a split, not a shard set; give the folder above it"),
    ],
)
def test_a_missing_split_is_named(small_set, root, name, message):
    with pytest.raises(ShardError, match=message):
        open_split(small_set.root / root, name)


@pytest.mark.parametrize(
    "name", ["manifest.json", "samples.npy", "frames.npy", "keys.npy", "labels.npy"]
)
def test_a_pipe_in_place_of_a_side_file_is_refused_at_once(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with alarm(), pytest.raises(ShardError, match=rf"{name} is damaged .*named pipe"):
        open_split(copy.parent, "train")


def test_a_manifest_of_terabytes_is_refused_at_once(copy):
    os.truncate(copy / "manifest.json", 1 << 42)
    with alarm(), pytest.raises(ShardError, match=r"is damaged .*larger than"):
        open_split(copy.parent, "train")


def test_verify_and_reindex_refuse_a_pipe_in_place_of_a_tar(copy):
    tar = next(copy.glob("*.tar"))
    tar.unlink()
    os.mkfifo(tar)
    with alarm():
        assert "named pipe" in verify_split(copy, 1)[0]
        with pytest.raises(ShardError, match="named pipe"):
            reindex(copy)
