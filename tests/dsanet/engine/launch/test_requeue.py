"""Requeueing, with a fake scontrol."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsanet.engine.launch import requeue as requeue_module
from dsanet.engine.launch.requeue import requeue


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scontrol that writes down how it was called."""
    log = tmp_path / "calls"
    script = tmp_path / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return log


def test_outside_slurm_nothing_is_requeued(scontrol: Path) -> None:
    outcome = requeue(3)
    assert not outcome.requeued
    assert "run the same command again" in outcome.message
    assert not scontrol.exists()


def test_a_job_is_requeued(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert requeue(3).requeued
    assert scontrol.read_text() == "requeue 13\n"


def test_a_task_of_an_array_requeues_itself_alone(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last task's job id is that of the whole array.
    for name, value in (("JOB_ID", "13"), ("ARRAY_JOB_ID", "13"), ("ARRAY_TASK_ID", "3")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert requeue(3).requeued
    assert scontrol.read_text() == "requeue 13_3\n"


def test_a_job_restarted_often_enough_is_not_requeued(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert requeue(4).requeued
    scontrol.unlink()
    outcome = requeue(3)
    assert not outcome.requeued
    assert "max_requeues" in outcome.message
    assert not scontrol.exists()


def test_a_refusal_of_slurm_is_reported(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho presently disabled >&2; exit 1\n")
    outcome = requeue(3)
    assert not outcome.requeued
    assert "job 13: presently disabled" in outcome.message


def test_the_file_runs_alone(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch scripts run it with a Python that has none of the packages."""
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    command = [sys.executable, "-S", "-E", requeue_module.__file__]
    assert subprocess.run([*command, "1"]).returncode == 0
    assert scontrol.read_text() == "requeue 13\n"
    assert subprocess.run([*command, "0"]).returncode == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_JOB_ID", "13,14"),
        ("SLURM_JOB_ID", "--help"),
        ("SLURM_RESTART_COUNT", "PATH[$(touch x)]"),
        ("SLURM_RESTART_COUNT", "1\n2"),
        ("SLURM_ARRAY_JOB_ID", "13"),
    ],
)
def test_variables_that_are_no_numbers_requeue_nothing(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv(name, value)
    outcome = requeue(3)
    assert not outcome.requeued
    assert outcome.message.startswith("cannot requeue")
    assert outcome.message.isprintable()
    assert not scontrol.exists()


def test_the_message_of_scontrol_is_one_printable_line(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'not\\nnow\\033[2J'; exit 1\n")
    assert requeue(3).message == "cannot requeue job 13: not now [2J"


@pytest.mark.parametrize("words", [["rc[$(touch x)]"], ["-1"], ["1", "2"], []])
def test_a_limit_that_is_no_number_is_one_line(scontrol: Path, words: list[str]) -> None:
    command = [sys.executable, "-S", "-E", requeue_module.__file__, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == ""
    assert done.stdout.startswith("error: runtime.max_requeues must be a whole number")
    assert not scontrol.exists()
