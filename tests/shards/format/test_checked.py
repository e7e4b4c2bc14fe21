"""The frame table of a large set is checked once, and again when it changes."""

from __future__ import annotations

import os

import numpy as np
import pytest

from shards import ShardError, open_split
from shards.format import checked, index


@pytest.fixture
def scans(monkeypatch) -> list[int]:
    """A list that gains an item for every check of a frame table; every table counts as large."""
    found: list[int] = []
    real = index.find_bad_frame

    def counted(frames, largest):
        found.append(len(frames))
        return real(frames, largest)

    monkeypatch.setattr(index, "find_bad_frame", counted)
    monkeypatch.setattr(checked, "WORTHWHILE", 0)
    return found


def test_a_table_is_checked_once(copy, scans):
    for _ in range(3):
        open_split(copy.parent, "train")
    assert len(scans) == 1


def test_a_changed_table_or_manifest_is_checked_again(copy, scans):
    open_split(copy.parent, "train")
    os.utime(copy / "frames.npy", ns=(1, 1))
    open_split(copy.parent, "train")
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"one"', '"another"'))
    open_split(copy.parent, "train")
    assert len(scans) == 3


def test_a_bad_table_is_never_remembered(copy, scans):
    frames = np.load(copy / "frames.npy")
    frames["size"][0] = 2**32 - 1
    np.save(copy / "frames.npy", frames)
    for _ in range(2):
        with pytest.raises(ShardError, match="row 0"):
            open_split(copy.parent, "train")
    assert not (copy / ".checked").exists()


def test_a_link_instead_of_the_note_leads_nowhere(copy, scans, tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    (copy / ".checked").symlink_to(other)
    open_split(copy.parent, "train")
    assert other.read_text() == "mine"
    assert not (copy / ".checked").is_symlink()
    (copy / ".checked").unlink()
    os.mkfifo(copy / ".checked")
    open_split(copy.parent, "train")


def test_a_folder_without_write_permission_is_no_hindrance(copy, scans, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checked.tempfile, "mkstemp", refuse)
    for _ in range(2):
        open_split(copy.parent, "train")
    assert len(scans) == 2


def test_small_tables_leave_no_note(copy):
    open_split(copy.parent, "train")
    assert not (copy / ".checked").exists()
