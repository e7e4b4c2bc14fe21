"""The run folder's records after an interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dsanet.engine.config import TrainConfig
from dsanet.engine.run_folder import RunFolder
from pipelines.quarantine import QuarantineFile

ASIDE = "metrics.jsonl.damaged"


def test_a_continued_run_drops_what_it_will_record_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    kept = [
        {"kind": "train", "samples": 4},
        {"kind": "train", "samples": 8},
        {"kind": "val", "samples": 8, "epoch": 1.0},
        {"kind": "train", "samples": 16},
    ]
    late = [
        {"kind": "val", "samples": 16, "epoch": 2.0},  # validated, but not saved
        {"kind": "epoch", "samples": 16, "epoch": 2},
        {"kind": "train", "samples": 20},
    ]
    for entry in kept + late:
        folder.add(entry)
    with folder.metrics.open("a") as file:
        file.write('{"kind": "train", "samples": 1')  # killed while writing
    lines: list[str] = []
    folder.truncate_metrics(16, 1, lines.append)
    assert [json.loads(line) for line in folder.metrics.read_text().splitlines()] == kept
    assert lines == [f"WARNING: {folder.metrics}: 1 damaged line moved to {ASIDE}"]
    assert (tmp_path / ASIDE).read_text() == '{"kind": "train", "samples": 1\n'
    folder.truncate_metrics(16, 1, lines.append)
    assert len(lines) == 1


DEEP = "[" * 100_000


def prepare(folder: RunFolder) -> list[str]:
    """What a start on a run folder reports."""
    lines: list[str] = []
    config = TrainConfig(data="x", model="i3d_r18", out=str(folder.path))
    folder.prepare(config, [], lines.append)
    return lines


@pytest.mark.parametrize("name", ["environment.json", "metrics.jsonl", "quarantine.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_renamed(name: str, kind: str, tmp_path: Path) -> None:
    """Opening a pipe would block for ever."""
    folder = RunFolder(tmp_path / "run")
    prepare(folder)
    path = folder.path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    [line] = prepare(folder)
    assert line.startswith(f"WARNING: {path}: damaged, renamed to {name}.damaged")
    folder.add({"kind": "train", "samples": 1})
    QuarantineFile(folder.quarantine, "train").add(3, "broken")
    assert prepare(folder) == []


def test_deeply_nested_records_are_set_aside(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    prepare(folder)
    folder.environment.write_text(DEEP)
    folder.metrics.write_text(f'{{"kind": "train", "samples": 1}}\n{DEEP}\n')
    [line] = prepare(folder)
    assert "environment.json: damaged, renamed" in line
    lines: list[str] = []
    folder.truncate_metrics(4, 1, lines.append)
    assert lines == [f"WARNING: {folder.metrics}: 1 damaged line moved to {ASIDE}"]


@pytest.mark.parametrize(
    "bad",
    [DEEP, "{", "[1]", '{"split": "train", "id": Infinity}', '{"split": "train", "id": -1}',
     '{"split": "train", "id": true}', '{"split": 3, "id": 1}', "null"],
    ids=range(8),
)  # fmt: skip
def test_garbled_lines_of_the_quarantine_are_set_aside(bad: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    prepare(folder)
    good = '{"split": "train", "id": 3, "reason": "r", "epoch": 0, "rank": 0}\n'
    folder.quarantine.write_text(f"{good}{bad}\n")
    QuarantineFile(folder.quarantine, "train").add(3, "already there")  # reads it as it is
    assert folder.quarantine.read_text() == f"{good}{bad}\n"
    [line] = prepare(folder)
    aside = "quarantine.jsonl.damaged"
    assert line == f"WARNING: {folder.quarantine}: 1 damaged line moved to {aside}"
    assert folder.quarantine.read_text() == good
    assert (folder.path / aside).read_text() == f"{bad}\n"
