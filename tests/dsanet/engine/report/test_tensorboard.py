"""TensorBoard files, where TensorBoard is installed."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from dsanet.engine import UsageError
from dsanet.engine.report.tensorboard import TensorBoardWriter

RECORD = {"kind": "train", "samples": 40, "loss": 1.5, "lr": 0.1, "wait_stage": "read"}


def test_numbers_become_scalars_over_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = TensorBoardWriter(tmp_path)
    writer.add(RECORD)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/lr"}
    [event] = events.Scalars("train/loss")
    assert (event.step, event.value) == (40, 1.5)


def test_without_tensorboard_the_error_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match="not installed; pip install"):
        TensorBoardWriter(tmp_path)
