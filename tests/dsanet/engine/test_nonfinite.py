"""The checkpoint of a step that was not finite: finite statistics, all other weights unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dsanet.engine.checkpoint import CheckpointFolder
from dsanet.engine.nonfinite import replace_nonfinite
from tests.dsanet.engine.contents import checkpoint_content

NAN = float("nan")


def content(statistics: float, weight: float, *, average: bool) -> Any:
    """A checkpoint of one BatchNorm with these running statistics and weights."""
    model = nn.BatchNorm1d(2)
    with torch.no_grad():
        model.running_mean.fill_(statistics)  # type: ignore[union-attr]
        model.running_var.fill_(statistics)  # type: ignore[union-attr]
        model.weight.fill_(weight)
    averaged = {k: v + 1 for k, v in model.state_dict().items()} if average else None
    return checkpoint_content(model=model.state_dict(), average=averaged)


@pytest.mark.parametrize("average", [False, True])
def test_statistics_are_taken_from_the_newest_checkpoint(average: bool, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, content(3.0, 1.0, average=average))
    replaced, note = replace_nonfinite(content(NAN, 2.0, average=average), folder)
    expected = content(3.0, 2.0, average=average)
    for part in ("model", "average"):
        for name, value in (replaced[part] or {}).items():  # type: ignore[literal-required]
            torch.testing.assert_close(value, expected[part][name])
    assert "newest checkpoint" in note


@pytest.mark.parametrize("damaged", [False, True])
def test_without_a_checkpoint_they_are_those_of_a_new_network(
    damaged: bool, tmp_path: Path
) -> None:
    folder = CheckpointFolder(tmp_path)
    if damaged:
        folder.save(1, content(3.0, 1.0, average=True)).write_bytes(b"damaged")
    replaced, note = replace_nonfinite(content(NAN, 2.0, average=True), folder)
    for part in (replaced["model"], replaced["average"]):
        assert part is not None
        assert torch.equal(part["running_mean"], torch.zeros(2))
        assert torch.equal(part["running_var"], torch.ones(2))
    assert torch.equal(replaced["average"]["weight"], torch.full((2,), 3.0))  # type: ignore[index]
    assert "a new network" in note


def test_finite_content_is_not_changed(tmp_path: Path) -> None:
    finite = content(1.0, 2.0, average=True)
    assert replace_nonfinite(finite, CheckpointFolder(tmp_path)) == (finite, "")
