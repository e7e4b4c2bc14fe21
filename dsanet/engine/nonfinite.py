"""The checkpoint written when the loss is not finite: training can start from it again."""

from __future__ import annotations

import torch

from dsanet.engine.checkpoint import CheckpointFolder
from dsanet.engine.errors import EngineError
from dsanet.engine.run_state import CheckpointContent, Weights, read_checkpoint


def replace_nonfinite(
    content: CheckpointContent, checkpoints: CheckpointFolder
) -> tuple[CheckpointContent, str]:
    """Replace the numbers of a run's state that are not finite, and describe how; "" if none are.

    A forward pass with a result that is not finite has changed BatchNorm's running statistics, and
    through them the averaged weights. Training does not read either, so it fails in the same way
    when it starts from the replaced ones.
    """
    model, average = content["model"], content["average"]
    if not (_nonfinite(model) or _nonfinite(average)):
        return content, ""
    newest = _newest(checkpoints)
    model = _filled(model, newest["model"] if newest else _initial(model))
    if average:
        average = _filled(average, (newest["average"] if newest else None) or model)
    source = "the newest checkpoint" if newest else "a new network"
    note = f" (BatchNorm's statistics were not finite, they are those of {source})"
    return {**content, "model": model, "average": average}, note


def _newest(checkpoints: CheckpointFolder) -> CheckpointContent | None:
    try:
        path = checkpoints.newest_intact(lambda warning: None)
        return read_checkpoint(path) if path else None
    except EngineError:  # all are damaged
        return None


def _nonfinite(weights: Weights | None) -> list[str]:
    return [name for name, v in (weights or {}).items() if not torch.isfinite(v).all()]


def _filled(weights: Weights, other: Weights) -> Weights:
    return weights | {name: other[name] for name in _nonfinite(weights)}


def _initial(weights: Weights) -> Weights:
    """BatchNorm's initial statistics: a variance of 1, a mean of 0."""
    return {
        name: torch.ones_like(value) if name.endswith("running_var") else torch.zeros_like(value)
        for name, value in weights.items()
    }
