"""The list of broken videos: one entry for each, whoever finds it and however often."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.quarantine import QuarantineFile


def entries(path: Path) -> list[tuple[str, int]]:
    """(split, id) of the whole lines."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            found.append((entry["split"], entry["id"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def test_a_restart_lists_no_video_again(tmp_path: Path) -> None:
    path = tmp_path / "run" / "quarantine.jsonl"
    for _ in range(3):
        file = QuarantineFile(path, "train")
        file.add(4, "damaged", epoch=0)
        file.add(7, "damaged")
    assert entries(path) == [("train", 4), ("train", 7)]
    assert json.loads(path.read_text().splitlines()[0]) == {
        "split": "train", "id": 4, "reason": "damaged", "epoch": 0, "rank": 0,
    }  # fmt: skip


def test_processes_list_a_video_once(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    files = [QuarantineFile(path, "train", rank) for rank in range(2)]
    for sample in (1, 2):
        for file in files:
            file.add(sample, "damaged")
    assert entries(path) == [("train", 1), ("train", 2)]


def test_splits_have_their_own_entries(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    for split in ("train", "val", "val"):
        QuarantineFile(path, split).add(3, "damaged")
    assert entries(path) == [("train", 3), ("val", 3)]


@pytest.mark.parametrize(
    "content", [b"[1]\n", b'{"id": "x"}\n', b"\xff\xfe\n\n", b"null\n", b'{"split": "train", "id']
)
def test_damaged_lines_are_left_and_spoil_no_entry(content: bytes, tmp_path: Path) -> None:
    """The last one is a line that a crash has cut off."""
    path = tmp_path / "quarantine.jsonl"
    QuarantineFile(path, "train").add(1, "damaged")
    with path.open("ab") as file:
        file.write(content)
    for _ in range(2):
        file = QuarantineFile(path, "train")
        file.add(1, "damaged")
        file.add(2, "damaged")
    assert entries(path) == [("train", 1), ("train", 2)]
    assert content in path.read_bytes()
