"""The dump of a step that was not finite holds finite numbers, and its weights as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dsanet.engine.checkpoint import FORMAT, CheckpointFolder
from dsanet.engine.nonfinite import mended


def state(mean: float, weight: float, *, average: bool) -> dict[str, Any]:
    """A run's state with such running statistics and weights."""
    model = nn.BatchNorm1d(2)
    with torch.no_grad():
        model.running_mean.fill_(mean)  # type: ignore[union-attr]
        model.running_var.fill_(mean)  # type: ignore[union-attr]
        model.weight.fill_(weight)
    averaged = {k: v + 1 for k, v in model.state_dict().items()} if average else None
    return {"format": FORMAT, "model": model.state_dict(), "average": averaged}


NAN = float("nan")


@pytest.mark.parametrize("average", [False, True])
def test_statistics_come_from_the_newest_checkpoint(average: bool, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(3.0, 1.0, average=average))
    found, told = mended(state(NAN, 2.0, average=average), folder)
    expected = state(3.0, 2.0, average=average)
    for part in ("model", "average"):
        for name, value in (found[part] or {}).items():
            torch.testing.assert_close(value, expected[part][name])
    assert "newest checkpoint" in told


def test_before_the_first_checkpoint_they_are_a_new_networks(tmp_path: Path) -> None:
    found, told = mended(state(NAN, 2.0, average=True), CheckpointFolder(tmp_path))
    for part in ("model", "average"):
        assert torch.equal(found[part]["running_mean"], torch.zeros(2))
        assert torch.equal(found[part]["running_var"], torch.ones(2))
    assert torch.equal(found["average"]["weight"], torch.full((2,), 3.0))
    assert "a new network" in told


def test_a_sound_state_stays_as_it_is(tmp_path: Path) -> None:
    sound = state(1.0, 2.0, average=True)
    assert mended(sound, CheckpointFolder(tmp_path)) == (sound, "")
