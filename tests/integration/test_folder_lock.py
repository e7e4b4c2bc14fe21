"""Two commands into one folder: the second is refused; what is killed comes back at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dsanet.engine.folder_lock import FolderLock
from dsanet.engine.lock_owner import this_process
from tests.integration.scripts import eval_here, finish, launch, records, run_script, train_here

Start = Callable[..., list[subprocess.Popen[str]]]
ELSEWHERE = replace(this_process(), token="0", host="elsewhere", machine="another", job="12")


def train(shards: Path, tiny: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("train.py", "--data", shards, "--config", tiny, "--out", out, *more)


def wait_for_lock(folder: Path, process: subprocess.Popen[str]) -> None:
    """Block until a folder is locked or the process has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / "lock").is_file():
            return
        time.sleep(0.01)


def assert_released(folder: Path) -> None:
    assert list(folder.glob("lock*")) == []


def test_of_two_trainings_at_once_the_second_is_refused(
    small_shards: Path, tiny: Path, tmp_path: Path, start: Start
) -> None:
    run = tmp_path / "run"
    [first] = start(*train(small_shards, tiny, run, "--schedule.epochs", 100))
    wait_for_lock(run, first)
    second = run_script(*train(small_shards, tiny, run, "--optim.lr", 0.5))
    assert second.returncode == 1
    [line] = second.stderr.splitlines()
    assert line.startswith(f"error: {run}: is in use by train.py of ")
    for part in (f"pid {first.pid}", this_process().host, "another --out"):
        assert part in line
    assert "lr: 0.02" in (run / "config.yaml").read_text()
    first.send_signal(signal.SIGTERM)
    done = finish([first])
    assert done.returncode == 143, done.stderr
    assert_released(run)


def test_of_two_started_in_one_instant_one_trains(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    both = [launch(*train(small_shards, tiny, tmp_path / "run"))[0] for _ in range(2)]
    done = [finish([process]) for process in both]
    assert sorted(d.returncode for d in done) in ([0, 1], [0, 0])  # one may start after the other
    assert [r["loss"] for r in records(tmp_path / "run")] == [r["loss"] for r in records(trained)]
    assert_released(tmp_path / "run")


def test_a_killed_training_is_taken_over_at_once(
    small_shards: Path, tiny: Path, tmp_path: Path, start: Start
) -> None:
    command = train(small_shards, tiny, tmp_path / "run")
    [process] = start(*command)
    wait_for_lock(tmp_path / "run", process)
    process.kill()
    process.wait()
    done = run_script(*command)
    assert done.returncode == 0, done.stderr
    assert f"taken over from train.py of {this_process().user}" in done.stdout
    assert "its process has ended" in done.stdout
    assert_released(tmp_path / "run")


@pytest.mark.parametrize(("restarts", "code"), [("0", 1), ("1", 0)])
def test_a_requeued_job_takes_over_on_another_host(
    restarts: str, code: int, small_shards: Path, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "lock").write_text(json.dumps(asdict(ELSEWHERE)))
    words = ("train.py", "--data", small_shards, "--out", run)
    done = run_script(*words, SLURM_JOB_ID="12", SLURM_RESTART_COUNT=restarts)
    assert done.returncode == code, done.stderr
    assert ("its job was requeued" in done.stdout) == (code == 0)
    assert ("elsewhere (pid" in done.stderr) == (code == 1)


def test_the_old_lock_of_another_host_is_taken_over(
    small_shards: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "lock").write_text(json.dumps(asdict(ELSEWHERE)))
    assert train_here("--data", small_shards, "--out", run) == 1
    assert "is in use by" in capfd.readouterr().err
    os.utime(run / "lock", (0, 0))
    assert train_here("--data", small_shards, "--out", run) == 0
    assert "was not renewed for" in capfd.readouterr().out
    assert_released(run)


def test_a_refused_training_leaves_no_lock(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    words = ("--data", small_shards, "--config", tiny, "--out", run)
    assert train_here(*words, "--seed", 7) == 2
    assert_released(run)
    assert train_here(*words, "--data", tmp_path / "none") == 1
    assert_released(run)


def test_an_owner_that_was_taken_over_writes_no_checkpoint(
    small_shards: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    check = FolderLock.check

    def lose_and_check(lock: FolderLock) -> None:
        lock.path.write_text(json.dumps(asdict(ELSEWHERE)))
        lock.renew()
        check(lock)

    monkeypatch.setattr(FolderLock, "check", lose_and_check)
    assert train_here("--data", small_shards, "--config", tiny, "--out", run) == 1
    assert "was taken over by" in capfd.readouterr().err
    assert list((run / "checkpoints").iterdir()) == []
    assert json.loads((run / "lock").read_text())["host"] == "elsewhere"


def test_an_evaluation_locks_its_folder(
    small_shards: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "lock").write_text(json.dumps(asdict(ELSEWHERE)))
    words = ("--data", small_shards, "--checkpoint", trained, "--out", out, "--clips", 2)
    assert eval_here(*words, "--crops", 1) == 1
    assert f"error: {out}: is in use by" in capfd.readouterr().err
    assert not (out / "metrics.json").exists()
    (out / "lock").unlink()
    assert eval_here(*words, "--crops", 1) == 0
    names = ["classes.csv", "confusion.csv", "metrics.json", "scores.npz"]
    assert sorted(path.name for path in out.iterdir()) == names
