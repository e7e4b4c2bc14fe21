"""eval.py after an interruption: the same scores, and no video scored twice."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dsanet.engine.evaluation.scoring import Scorer
from pipelines import Batch, EvalLoader
from tests.integration.scripts import eval_here, finish

Start = Callable[..., list[subprocess.Popen[str]]]
VIDEOS = 20


def command(shards: Path, run: Path, out: Path, *more: object) -> tuple[object, ...]:
    words = ("--data", shards, "--checkpoint", run, "--split", "train", "--out", out)
    return (*words, "--batch", 1, "--loader.threads", 1, *more)


@pytest.fixture(scope="module")
def unbroken(small_shards: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    assert eval_here(*command(small_shards, trained, out)) == 0
    return out


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of videos that each evaluation in this process has decoded."""
    counts: list[int] = []
    iterate = EvalLoader.__iter__

    def spy(self: EvalLoader) -> Iterator[Batch]:
        counts.append(0)
        for batch in iterate(self):
            counts[-1] += int(batch.valid.sum())
            yield batch

    monkeypatch.setattr(EvalLoader, "__iter__", spy)
    return counts


def wait_for_scores(out: Path, process: subprocess.Popen[str]) -> None:
    """Wait until some scores are saved; fail if the process ends before."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if sum(p.stat().st_size for p in out.glob("partial/scores-*.bin")) > 100:
            return
        time.sleep(0.005)
    pytest.fail(f"no scores were saved: {process.communicate()}")


def assert_same_scores(out: Path, unbroken: Path) -> None:
    mine, other = (np.load(p / "scores.npz", allow_pickle=False) for p in (out, unbroken))
    for name in ("ids", "labels"):
        np.testing.assert_array_equal(mine[name], other[name])
    np.testing.assert_allclose(mine["scores"], other["scores"], rtol=0, atol=1e-5)
    metrics, expected = (json.loads((p / "metrics.json").read_text()) for p in (out, unbroken))
    assert metrics == expected
    assert not (out / "partial").exists()


def test_a_killed_evaluation_continues(
    small_shards: Path, trained: Path, unbroken: Path, tmp_path: Path, start: Start,
    decoded: list[int], capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = command(small_shards, trained, tmp_path / "out")
    [process] = start("eval.py", *words)
    wait_for_scores(tmp_path / "out", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert eval_here(*words) == 0
    assert 0 < decoded[0] < VIDEOS
    line = f"continuing: {VIDEOS - decoded[0]} of {VIDEOS} videos are scored"
    assert line in capfd.readouterr().out
    assert_same_scores(tmp_path / "out", unbroken)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 138), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_processes_and_one_process_continues(
    number: int, code: int, small_shards: Path, trained: Path, unbroken: Path, tmp_path: Path,
    start: Start, decoded: list[int],
) -> None:  # fmt: skip
    words = command(small_shards, trained, tmp_path / "out")
    both = start("eval.py", *words, processes=2)
    wait_for_scores(tmp_path / "out", both[0])
    for process in both:
        process.send_signal(number)
    done = finish(both)
    assert [process.returncode for process in both] == [code, code], done.stderr
    assert "run the same command again to continue" in done.stdout
    assert not done.stderr
    assert eval_here(*words) == 0
    assert 0 < decoded[0] < VIDEOS
    assert_same_scores(tmp_path / "out", unbroken)


def test_with_other_settings_all_videos_are_scored_again(
    small_shards: Path, trained: Path, tmp_path: Path, start: Start, decoded: list[int],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = command(small_shards, trained, tmp_path / "out")
    [process] = start("eval.py", *words)
    wait_for_scores(tmp_path / "out", process)
    process.send_signal(signal.SIGTERM)
    assert finish([process]).returncode == 143
    assert eval_here(*words, "--crops", 1) == 0
    assert decoded == [VIDEOS]
    assert "protocol.crops was 3, is now 1" in capfd.readouterr().out


def test_a_stream_is_decoded_again_but_not_scored_twice(
    small_shards: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command(small_shards, trained, tmp_path / "out", "--loader.reader", "webdataset")
    scored: list[int] = []
    inputs = Scorer.inputs

    def spy(self: Scorer, clips: torch.Tensor) -> torch.Tensor:
        scored.append(len(clips))
        if len(scored) == 8:
            raise KeyboardInterrupt
        return inputs(self, clips)

    monkeypatch.setattr(Scorer, "inputs", spy)
    assert eval_here(*words) == 130
    assert eval_here(*words) == 0
    # Six were saved, as the scores of the seventh were to be read once the eighth was started. The
    # first batch is always scored, which gives the number of classes.
    assert len(scored) == 8 + VIDEOS - 6 + 1
    table = np.load(tmp_path / "out" / "scores.npz", allow_pickle=False)
    assert table["ids"].tolist() == list(range(VIDEOS))
