"""The run folder's records after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

from dsanet.engine.record import RunFolder, git_state, versions


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
    for record in kept + late:
        folder.add(record)
    with folder.metrics.open("a") as file:
        file.write('{"kind": "train", "samples": 1')  # killed while writing
    folder.cut(samples=16, epochs=1)
    assert [json.loads(line) for line in folder.metrics.read_text().splitlines()] == kept


def test_versions_and_git_state_are_known() -> None:
    assert {"python", "torch", "numpy"} <= versions().keys()
    assert set(git_state()) <= {"commit", "changes", "diff"}
