"""The dump of a step that was not finite: a state that training can begin with again."""

from __future__ import annotations

from typing import Any

import torch

from dsanet.engine.checkpoint import CheckpointFolder
from dsanet.engine.errors import EngineError

Weights = dict[str, torch.Tensor]


def mended(state: dict[str, Any], checkpoints: CheckpointFolder) -> tuple[dict[str, Any], str]:
    """A run's state with finite numbers in place of what the step has spoilt, and a note of them.

    The forward pass that was not finite has gone into BatchNorm's running statistics and from there
    into the averaged weights; training reads neither, so the dump shows the failure all the same.
    """
    if not (_spoilt(state["model"]) or _spoilt(state["average"])):
        return state, ""
    try:
        sound = checkpoints.newest(lambda _: None) or {}
    except EngineError:  # none that can be read
        sound = {}
    model = _filled(state["model"], sound.get("model") or _fresh(state["model"]))
    average = state["average"]
    if average:
        average = _filled(average, sound.get("average") or model)
    source = "the newest checkpoint" if sound else "a new network"
    told = f" (with BatchNorm's statistics, which the step has spoilt, of {source})"
    return state | {"model": model, "average": average}, told


def _spoilt(weights: Weights | None) -> list[str]:
    return [k for k, v in (weights or {}).items() if not torch.isfinite(v).all()]


def _filled(weights: Weights, sound: Weights) -> Weights:
    return weights | {name: sound[name] for name in _spoilt(weights)}


def _fresh(weights: Weights) -> Weights:
    """What BatchNorm begins with: variance 1; mean 0."""
    fill = {True: torch.ones_like, False: torch.zeros_like}
    return {name: fill[name.endswith("running_var")](weights[name]) for name in _spoilt(weights)}
