"""--loader.tune: it finds what a slow stage needs, keeps it, and never changes a run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import pipelines.decode.cpu_resize
from dsanet.engine.tuning import trials
from tests.integration.scripts import course, run_script, train_here

# Everything that can be tuned on a CPU is left open.
OPEN = ("--loader.threads", 0, "--loader.read_threads", "null", "--loader.prefetch", "null")


@pytest.fixture
def command(
    small_shards: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[object, ...]:
    """A short run with a cache of its own, on what it takes for two cores."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pipelines.decode.backend.usable_cores", lambda: 2)
    monkeypatch.setattr("dsanet.engine.tuning.tune.usable_cores", lambda: 2)
    monkeypatch.setattr(trials, "SECONDS", 0.2)
    words = ("--data", small_shards, "--config", tiny, "--epoch_limit", 1, *OPEN)
    return (*words, "--validation.split", "null", "--runtime.preflight", "false")


def slow_resize(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """An artificially slow stage of the loader, on the threads of `loader.threads`."""
    resize = pipelines.decode.cpu_resize.resize

    def slow(*arguments: Any) -> None:
        time.sleep(seconds)
        resize(*arguments)

    monkeypatch.setattr(pipelines.decode.cpu_resize, "resize", slow)


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "loader.json").read_bytes())


def saved_weights(run: Path) -> dict[str, torch.Tensor]:
    """Weights and running statistics after the last step."""
    [path] = (run / "checkpoints").glob("step-*.pt")
    return torch.load(path, weights_only=True)["model"]


def test_a_slow_stage_gets_more_threads_and_the_next_start_takes_them_from_the_cache(
    command: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert train_here(*command, "--out", tmp_path / "plain") == 0
    assert not (tmp_path / "plain" / "loader.json").exists()
    slow_resize(monkeypatch, 0.15)
    assert train_here(*command, "--out", tmp_path / "run", "--loader.tune", "again") == 0
    found = result(tmp_path / "run")
    assert found["settings"]["threads"] == 4  # 4 videos a batch, 0.15 s each
    assert "<- taken" in capfd.readouterr().out
    # As on a GPU, where this is the default.
    monkeypatch.setattr("dsanet.engine.tuning.tune.is_wanted", lambda training: True)
    monkeypatch.setattr("dsanet.engine.main.is_wanted", lambda training: True)
    monkeypatch.setattr("dsanet.engine.main.tune_loader", lambda training: pytest.fail("again"))
    assert train_here(*command, "--out", tmp_path / "next") == 0
    assert "--loader.threads 4" in capfd.readouterr().out
    plain, weights = course(tmp_path / "plain"), saved_weights(tmp_path / "plain")
    for name in ("run", "next"):
        assert course(tmp_path / name) == plain
        others = saved_weights(tmp_path / name)
        assert all(torch.equal(value, others[key]) for key, value in weights.items())


def test_a_damaged_cache_is_ignored_with_a_warning(
    command: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("dsanet.engine.tuning.tune.is_wanted", lambda training: True)
    monkeypatch.setattr("dsanet.engine.main.is_wanted", lambda training: True)
    tuned = []
    monkeypatch.setattr("dsanet.engine.main.tune_loader", tuned.append)
    run = tmp_path / "run"
    run.mkdir()
    (run / "loader.json").write_bytes(b'{"key": {}, "sett')
    assert train_here(*command, "--out", run) == 0
    assert "loader.json: ignored, it is damaged" in capfd.readouterr().out
    assert len(tuned) == 1


@pytest.mark.slow
def test_two_processes_tune_together(
    command: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, tuned = tmp_path / "plain", tmp_path / "tuned"
    for run, mode in ((plain, "off"), (tuned, "again")):
        words = ("train.py", *command, "--out", run, "--loader.tune", mode)
        done = run_script(*words, processes=2)
        assert done.returncode == 0, done.stderr
    assert course(tuned) == course(plain)
    assert result(tuned)["key"]["processes"] == 2
