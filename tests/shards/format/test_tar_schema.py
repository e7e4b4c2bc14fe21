"""Tars from a stranger: their JSON, arrays and headers are checked before an index is made."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards import ShardError, open_split
from shards.build.state import merge, reindex
from shards.build.verify import verify_split
from shards.format.tars import RECORD_NAME, TarWriter, iter_members, read_member

Change = Callable[[dict[str, Any]], Any]


def rewrite(tar: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Write a tar anew with the content of one of its members changed."""
    with open(tar, "rb") as file:
        members = [(member, read_member(file, member)) for member in iter_members(file)]
    tar.unlink()
    writer = TarWriter(tar)
    for member, data in members[:-1]:
        writer.add(member.name, change(data) if member.name == name else data, member.kind)
    (_, record) = members[-1]
    writer.finish(json.loads(change(record) if name == RECORD_NAME else record))


def edited(change: Change) -> Callable[[bytes], bytes]:
    """A change of a JSON object as a change of its text."""

    def edit(data: bytes) -> bytes:
        content = json.loads(data)
        changed = change(content)
        return json.dumps(content if changed is None else changed).encode()

    return edit


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def refusal(folder: Path) -> str:
    """The one line by which `reindex` refuses a set; `verify` has it as its fault."""
    with pytest.raises(ShardError) as caught:
        reindex(folder)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 1000
    assert verify_split(folder, 1) == [text]
    return text


RECORDS: list[Change] = [
    lambda r: ["a list"],
    lambda r: r.update(split="../../x"),
    lambda r: r.update(split=None),
    lambda r: r.update(tars=10**12),
    lambda r: r.update(tars="1"),
    lambda r: r.update(classes=["one", 2]),
    lambda r: r.update(settings=[]),
    lambda r: r.update(versions={}),
    lambda r: r.pop("verdicts") and None,
    lambda r: r["verdicts"][0].update(labels=[2]),
    lambda r: r["verdicts"][0].update(labels=None),
    lambda r: r["verdicts"][0].update(status="fine"),
    lambda r: r["verdicts"][0].update(frames="many"),
    lambda r: r["verdicts"][0].update(key=5),
]


@pytest.mark.parametrize("change", RECORDS)
def test_a_record_that_is_not_valid_is_named(copy, change):
    (tar,) = copy.glob("*.tar")
    rewrite(tar, RECORD_NAME, edited(change))
    assert "in its record" in refusal(copy)


SAMPLES: list[Change] = [
    lambda m: [],
    lambda m: m.update(key="../b"),
    lambda m: m.update(key="c"),
    lambda m: m.update(labels=[2]),
    lambda m: m.update(labels=["1"]),
    lambda m: m.update(width=0),
    lambda m: m.update(width=2**40),
    lambda m: m.update(width=60_000, height=60_000),
    lambda m: m.update(fps="1/0"),
    lambda m: m.update(fps="0"),
    lambda m: m.update(fps="1e9999"),
    lambda m: m.update(fps="9" * 5000),
    lambda m: m.update(frames=3),
    lambda m: m.update(codec="raw"),
]


@pytest.mark.parametrize("change", SAMPLES)
def test_a_description_that_is_not_valid_is_named(copy, change):
    (tar,) = copy.glob("*.tar")
    rewrite(tar, "b.json", edited(change))
    assert "in sample b" in refusal(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table[:, None],
        lambda table: table[:, 0],
        lambda table: table[:-1],
        lambda table: np.zeros(len(table), "<f8"),
    ],
)
def test_a_table_of_another_shape_is_named(copy, change):
    (tar,) = copy.glob("*.tar")
    rewrite(tar, "b.frames.npy", lambda data: npy(change(np.load(io.BytesIO(data)))))
    assert "in sample b" in refusal(copy)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\0\xff\xff", b"null"])
@pytest.mark.parametrize("name", ["b.frames.npy", "b.json"])
def test_any_content_of_a_small_member_is_one_line(copy, name, content):
    (tar,) = copy.glob("*.tar")
    rewrite(tar, name, lambda data: content)
    assert "in sample b" in refusal(copy)


def test_a_table_that_points_outside_of_its_mp4_is_named(copy):
    (tar,) = copy.glob("*.tar")

    def enlarge(data: bytes) -> bytes:
        table = np.load(io.BytesIO(data)).copy()
        table[1, 1] = 2**32 - 1  # the size of frame 1
        return npy(table)

    rewrite(tar, "b.frames.npy", enlarge)
    assert "points outside of its mp4: row 1" in refusal(copy)


def header(size: int) -> bytes:
    info = tarfile.TarInfo("x.mp4")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)  # which writes any number, in base 256


@pytest.mark.parametrize("size", [-512, -1, -(2**40), 2**40, 2**62])
def test_a_header_that_claims_any_size_ends_the_scan(copy, size):
    """A negative one would lead back to the beginning, for ever."""
    (tar,) = copy.glob("*.tar")
    tar.write_bytes(header(size) + tar.read_bytes())
    assert "has no room for" in refusal(copy)


def test_links_in_a_set_from_elsewhere_are_not_written_through(copy, tmp_path):
    for name in (".manifest.json.part", ".samples.npy.part", ".build/merge.lock"):
        victim = tmp_path / "victim"
        victim.write_text("mine")
        link = copy / name
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
        with pytest.raises((ShardError, OSError)):
            merge(copy)
        assert victim.read_text() == "mine"
        link.unlink(missing_ok=True)
        os.mkfifo(link)  # and none is waited for
        with pytest.raises((ShardError, OSError)):
            merge(copy)
        link.unlink(missing_ok=True)
    merge(copy)
    assert len(open_split(copy.parent, "train")) == 3


@pytest.mark.parametrize("name", ["plan.json", "train-000000.tar.json"])
@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "{}", '{"split": "../x"}', "5"])
def test_a_state_of_a_build_that_is_not_valid_is_one_line(copy, name, content):
    (copy / ".build" / name).write_text(content)
    with pytest.raises(ShardError) as caught:
        merge(copy)
    assert str(caught.value).isprintable()


def test_a_tar_that_is_no_regular_file_is_never_waited_for(copy):
    (tar,) = copy.glob("*.tar")
    tar.unlink()
    os.mkfifo(tar)
    assert "not a regular file" in refusal(copy)
