"""The run folder's records after an interruption."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dsanet.engine import run_folder as record
from dsanet.engine.run_folder import RunFolder, git_state, versions

ASIDE = "metrics.jsonl.damaged"
ROOT = Path(__file__).resolve().parents[3]


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
    said: list[str] = []
    folder.cut(16, 1, said.append)
    assert [json.loads(line) for line in folder.metrics.read_text().splitlines()] == kept
    assert said == [f"WARNING: 1 damaged line of {folder.metrics} set aside in {ASIDE}"]
    assert (tmp_path / ASIDE).read_text() == '{"kind": "train", "samples": 1\n'
    folder.cut(16, 1, said.append)
    assert len(said) == 1


def test_versions_are_known() -> None:
    assert {"python", "torch", "numpy"} <= versions().keys()


def test_the_commit_is_known_in_a_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    state = git_state()
    assert set(state) == {"commit", "changes", "diff"}
    assert re.fullmatch("[0-9a-f]{40}", state["commit"])


def test_outside_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "__file__", str(tmp_path / "dsanet" / "engine" / "run_folder.py"))
    assert git_state() == {}
