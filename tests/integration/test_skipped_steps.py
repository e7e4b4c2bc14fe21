"""Steps that the loss scaler skips, and the count of steps that the averaged weights get."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dsanet.engine import execution, trainer
from dsanet.engine import step as passes
from dsanet.engine.optim import WeightAverage
from dsanet.engine.setup import Training
from tests.integration.scripts import records, train_here


@pytest.fixture
def fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 as far as a CPU has it: its scaler, around passes in fp32."""
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    monkeypatch.setattr(execution, "pick_precision", lambda *_, **__: "fp16")
    monkeypatch.setattr(execution, "build_scaler", lambda *_: scaler)
    monkeypatch.setattr(passes, "autocast", lambda *_: torch.enable_grad())
    monkeypatch.setattr(trainer, "MAX_SKIPPED", 6, raising=False)


def overflow(monkeypatch: pytest.MonkeyPatch, steps: Iterator[bool]) -> None:
    """Give each step for which `steps` is true a gradient that is not finite."""
    update = trainer.update

    def spoil_and_update(training: Training) -> Tensor:
        if next(steps):
            parameter = next(training.state.model.parameters())
            assert parameter.grad is not None
            parameter.grad.fill_(math.inf)
        return update(training)

    monkeypatch.setattr(trainer, "update", spoil_and_update)


def test_a_run_whose_every_step_is_skipped_stops_with_the_scale(
    fp16: None, small_shards: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    overflow(monkeypatch, iter([False, *[True] * 9]))
    words = ("--data", small_shards, "--config", tiny, "--out", tmp_path, "--validation.split")
    assert train_here(*words, "null", "--runtime.preflight", "false") == 1
    [line] = capfd.readouterr().err.splitlines()
    for part in ("last 6 steps, up to step 7", "loss scale that is now 1024;", "bf16 or fp32"):
        assert part in line
    assert len(records(tmp_path)) == 6


def test_skipped_steps_that_are_not_in_a_row_do_not_stop_a_run(
    fp16: None, small_shards: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow(monkeypatch, iter([*[True] * 5, False, *[True] * 4]))
    words = ("--data", small_shards, "--config", tiny, "--out", tmp_path, "--validation.split")
    assert train_here(*words, "null", "--runtime.preflight", "false") == 0
    assert len(records(tmp_path)) == 10


def test_the_averaged_weights_are_told_how_many_updates_the_weights_have(
    small_shards: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    update = WeightAverage.update

    def note_and_update(self: WeightAverage, model: nn.Module, step: int) -> None:
        steps.append(step)
        update(self, model, step)

    monkeypatch.setattr(WeightAverage, "update", note_and_update)
    words = ("--data", small_shards, "--config", tiny, "--out", tmp_path, "--validation.split")
    more = ("--runtime.preflight", "false", "--optim.ema", 0.9, "--epoch_limit", 1)
    assert train_here(*words, "null", *more) == 0
    assert steps == [1, 2, 3, 4, 5]
