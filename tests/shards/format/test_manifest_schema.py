"""A manifest from a stranger is checked before anything in it is used."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from shards import ShardError, open_split
from shards.format.manifest import read_manifest
from shards.format.manifest_schema import MAX_BYTES

TAR = ("tars", 0)
BAD_NAMES = [
    "../../x.tar", "/abs/x.tar", "a/b.tar", "a\\b.tar", "..", ".tar", ".hidden.tar", "-x.tar", "",
    "x", "x.tar\n", "x.tar\0", "x\x1b[1m.tar", "é.tar", "x" * 300 + ".tar", None, 5, ["x.tar"],
]  # fmt: skip
BAD_ENTRIES = [
    (("counts",), None), (("counts", "samples"), True), (("counts", "samples"), -1),
    (("counts", "samples"), 3.0), (("counts", "frames"), 1 << 80), (("counts", "sources"), [1]),
    (("counts", "sources", "ok"), "3"), (("classes",), {"a": 0}), (("classes", 0), 1),
    (("classes", 0), "x" * 1001), (("classes", 0), "\ud800"), (("settings",), "mjpeg"),
    (("settings", "codec"), "mpeg2"), (("settings", "codec"), ["mjpeg"]), (("settings", "gop"), 0),
    (("settings", "gop"), 1 << 40), (("settings", "gop"), True), (("tars",), {"0": {}}),
    (TAR, "x.tar"), ((*TAR, "size"), -1), ((*TAR, "size"), 1 << 60), ((*TAR, "size"), "1"),
    ((*TAR, "sha256"), "0" * 63), ((*TAR, "sha256"), "../" * 22), ((*TAR, "samples"), None),
    (("version",), True), (("version",), 1 << 70),
]  # fmt: skip


def put(value: dict[str, Any], path: tuple[Any, ...], new: object) -> dict[str, Any]:
    *parents, last = path
    place: Any = value
    for step in parents:
        place = place[step]
    place[last] = new
    return value


def refusal(folder) -> str:
    """The one line by which a split is refused."""
    with pytest.raises(ShardError) as caught:
        open_split(folder.parent, folder.name)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 1000
    return text


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_of_a_tar_is_a_plain_file_name(copy, name):
    manifest = put(read_manifest(copy), (*TAR, "name"), name)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "tars[0].name must be a plain file name" in refusal(copy)


def test_no_two_tars_have_one_name(copy):
    manifest = read_manifest(copy)
    manifest["tars"] *= 2
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "tars[1].name must not be in the list twice" in refusal(copy)


@pytest.mark.parametrize(("path", "new"), BAD_ENTRIES, ids=ascii)
def test_an_entry_of_another_type_or_out_of_bounds_is_named(copy, path, new):
    (copy / "manifest.json").write_text(json.dumps(put(read_manifest(copy), path, new)))
    assert str(path[-1]) in refusal(copy).replace("[0]", " 0")


def test_whole_numbers_of_any_length_are_refused(copy):
    text = json.dumps(put(read_manifest(copy), ("counts", "frames"), 77))
    for digits in (4000, 5000):  # Python converts up to 4300
        (copy / "manifest.json").write_text(text.replace(": 77", ": " + "9" * digits))
        refusal(copy)


@pytest.mark.parametrize("depth", [30, 100_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_deep_nesting_is_refused(copy, depth, brackets):
    manifest = json.dumps(read_manifest(copy))
    opening = brackets[0] if brackets == "[]" else '{"a":'
    deep = opening * depth + ("1" if brackets == "{}" else "") + brackets[1] * depth
    (copy / "manifest.json").write_text(manifest[:-1] + f', "more": {deep}}}')
    refusal(copy)


def test_unknown_entries_are_ignored(copy):
    manifest = put(read_manifest(copy), ("more",), {"a": [1, {"b": None}]})
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert len(open_split(copy.parent, "train")) == 3


def test_a_manifest_that_is_no_regular_file_is_never_waited_for(copy):
    path = copy / "manifest.json"
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in refusal(copy)
    path.unlink()
    path.mkdir()
    assert "not a regular file" in refusal(copy)
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "larger than" in refusal(copy)
