"""Versions and commit that a run records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsanet.engine import environment
from dsanet.engine.environment import git_state, torch_faults, versions

ROOT = Path(__file__).resolve().parents[3]


def test_versions_are_known() -> None:
    assert {"python", "torch", "numpy"} <= versions().keys()


def test_known_faults_of_a_version_of_torch_come_with_their_remedies() -> None:
    assert torch_faults("2.11.0+cu128") == []
    assert "2.10 or newer" in torch_faults("2.9.1+cu128")[0]
    assert "TORCHINDUCTOR_LOOP_REINDEXING_AFTER_FUSION=0" in torch_faults("2.13.0+cu130")[0]
    assert "--compile false" in torch_faults("2.14.0a0+git1")[0]


def test_the_commit_is_known_in_a_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    state = git_state()
    assert set(state) == {"commit", "changes", "diff"}
    assert re.fullmatch("[0-9a-f]{40}", state["commit"])


def test_outside_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "dsanet/engine/environment.py"))
    assert git_state() == {}
