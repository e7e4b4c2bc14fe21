"""train.py with the webdataset reader: each process continues from the state of its reader."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import TrainLoader
from tests.integration.scripts import course, run_script, train_here


def command(shards: Path, tiny: Path, out: Path) -> tuple[object, ...]:
    more = ("--loader.reader", "webdataset", "--checkpoint.every_steps", 1, "--checkpoint.keep", 20)
    return ("--data", shards, "--config", tiny, "--out", out, *more)


def stopped_after(step: int, run: Path, out: Path) -> Path:
    """A run as it was when it was killed after a step."""
    shutil.copytree(run, out)
    for path in (out / "checkpoints").glob("step-*.pt"):
        if int(path.name.split("-")[1]) > step:
            path.unlink()
    return out


@pytest.fixture(scope="module")
def runs(
    small_shards: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Undisturbed runs by their number of processes."""
    folder = tmp_path_factory.mktemp("webdataset")
    made = {}
    for processes in (1, 2):
        made[processes] = folder / str(processes)
        words = ("train.py", *command(small_shards, tiny, made[processes]))
        done = run_script(*words, processes=processes)
        assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_one_process_continues_from_its_readers_state(
    runs: dict[int, Path], small_shards: Path, tiny: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = []
    epoch = TrainLoader.epoch

    def spy(self: TrainLoader, number: int, start: int = 0, state: bytes | None = None) -> object:
        asked.append((number, start, state is not None))
        return epoch(self, number, start, state)

    monkeypatch.setattr(TrainLoader, "epoch", spy)
    run = stopped_after(3, runs[1], tmp_path / "run")
    assert train_here(*command(small_shards, tiny, run)) == 0
    assert "continues from its saved state" in capfd.readouterr().out
    assert asked == [(0, 12, True), (1, 0, False)]
    assert [s[:2] for s in course(run)] == [s[:2] for s in course(runs[1])]
    np.testing.assert_allclose(
        [s[2:] for s in course(run)], [s[2:] for s in course(runs[1])], rtol=1e-3
    )


def test_two_processes_continue_each_from_its_own_readers_state(
    runs: dict[int, Path], small_shards: Path, tiny: Path, tmp_path: Path
) -> None:
    run = stopped_after(7, runs[2], tmp_path / "run")
    done = run_script("train.py", *command(small_shards, tiny, run), processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "continues from its saved state" in done.stdout
    assert course(run) == course(runs[2])


def test_another_number_of_processes_reads_through_and_says_so(
    runs: dict[int, Path], small_shards: Path, tiny: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = stopped_after(3, runs[2], tmp_path / "run")
    assert train_here(*command(small_shards, tiny, run)) == 0
    said = capfd.readouterr().out
    assert "was saved by 2 processes, now there are 1, so that some videos" in said
    assert "it skips the videos of this epoch that are done" in said
    # One process has another order than two; what it passes over is of its own.
    assert [s[:2] for s in course(run)][3:] == [s[:2] for s in course(runs[1])][3:]


def test_places_are_plain_tensors_of_all_processes(runs: dict[int, Path]) -> None:
    [path] = (runs[2] / "checkpoints").glob("step-000000003-*.pt")
    readers = torch.load(path, weights_only=True)["readers"]
    assert readers["samples"] == 12
    assert [place.dtype for place in readers["states"]] == [torch.uint8] * 2
