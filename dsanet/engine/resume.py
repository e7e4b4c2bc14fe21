"""Continuing a run: the same one, on the same data, from its newest sound checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dsanet.engine.checkpoint import find_checkpoint, load_checkpoint
from dsanet.engine.config import TrainConfig, load_saved, plain
from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.launch.distributed import World
from dsanet.engine.optim import zero_momentum
from dsanet.engine.reader_state import dali_version, own_place
from dsanet.engine.run_folder import RunFolder, versions
from dsanet.engine.setup import Training

# What a run may not change once it has begun: its steps would no longer be those of one run.
FIXED = (
    "model",
    "network",
    "sampling",
    "augment",
    "seed",
    "split",
    "batch.videos",
    "optim.decay_norm_and_bias",
    "loader.order",
    "loader.reader",
)


def _at(content: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        content = content[part]
    return content


def check_same_run(old: dict[str, Any], wanted: TrainConfig) -> None:
    """Refuse to continue a run, of which the settings were `old`, as another one.

    Raises:
        UsageError: naming the first key that differs.
    """
    new = plain(wanted)
    for key in FIXED:
        before, now = _at(old, key), _at(new, key)
        if before == now:
            continue
        if isinstance(before, dict):
            part = next(k for k in [*now, *before] if before.get(k) != now.get(k))
            key, before, now = f"{key}.{part}", before.get(part), now.get(part)
        raise UsageError(
            f"{wanted.out} was begun with {key} = {before}, now it is {now}: continue it as it "
            "was, or give another --out"
        )


def _begun_with(folder: RunFolder, say: Callable[[str], None]) -> dict[str, Any]:
    """Settings of the run in a folder: those of its checkpoint where config.yaml is damaged."""
    try:
        return dict(plain(load_saved(folder.config)))
    except UsageError as error:
        say(f"WARNING: {error}; going by the newest checkpoint, and writing it anew")
    state = folder.checkpoints.newest(say)
    assert state is not None  # or it would have raised
    return dict(state["config"])


def open_folder(
    config: TrainConfig,
    world: World,
    processes: list[str],
    say: Callable[[str], None] = print,
) -> None:
    """Create the run folder, or check that it is this run's, and note the start.

    Raises:
        UsageError: when the folder holds another run.
    """
    folder = RunFolder(config.out)
    if folder.checkpoints.names():
        check_same_run(_begun_with(folder, say), config)
    world.barrier()
    if world.main:
        folder.prepare(config, processes, say)


def restore(training: Training) -> None:
    """Continue from the newest sound checkpoint, if there is one.

    Raises:
        EngineError: when the checkpoint belongs to other data or another network.
    """
    config, folder = training.config, training.folder
    state = folder.checkpoints.newest(training.console.say, mend=training.world.main)
    if state is None and config.resume:
        state = load_checkpoint(find_checkpoint(Path(config.resume), "last"))
    if state is not None:
        _take(state, training)
    _check_agreement(training)
    if training.world.main:  # without a checkpoint, too: a kill may have come before the first
        folder.cut(training.samples, training.validated, training.console.say)
    if state is None:
        return
    names = folder.checkpoints.names()
    if training.world.main and names:  # a kill may have come before the mark
        folder.checkpoints.offer_best(names[-1], state["score"])
    training.console.say(
        f"continuing after step {training.step} (epoch {training.epoch:.2f}), "
        f"{training.samples} videos"
    )


def _take(state: dict[str, Any], training: Training) -> None:
    config = training.config
    _check_data(state, training)
    load_weights_into(training.model, state["model"], config.out)
    if training.average:  # switched on just now, it begins with the weights as they are
        training.average.model.load_state_dict(state["average"] or state["model"])
    load_optimizer(training.optimizer, state["optimizer"], config.out)
    if state.get("precision") == training.precision:  # a scale is good for its precision alone
        training.scaler.load_state_dict(state["scaler"])
    training.samples, training.validated = state["samples"], state["validated"]
    if (
        config.loader.reader == "webdataset"
        and training.samples % training.layout.samples_per_epoch
    ):
        dali = dali_version(versions())
        training.place = own_place(state, training.world, dali, training.console.say)


def _check_agreement(training: Training) -> None:
    """Refuse to go on from different checkpoints, as a folder listed late would have it."""
    here = np.array([training.samples], np.int64)
    positions = [int(p[0]) for p in training.world.gather(here)]
    if len(set(positions)) > 1:
        told = ", ".join(f"rank {rank} at {at}" for rank, at in enumerate(positions))
        raise EngineError(
            f"the processes found different checkpoints in {training.folder.checkpoints.path} "
            f"(videos trained on: {told}): its file system shows them late, run the same command "
            "again"
        )


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], source: str) -> None:
    """Load momentum; settings such as weight decay stay as they are configured now.

    Raises:
        EngineError: when the parameters were grouped in another way.
    """
    own = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        raise EngineError(
            f"the checkpoint of {source} groups its parameters in another way: continue with the "
            "same --optim.decay_norm_and_bias"
        ) from error
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    zero_momentum(optimizer)


def _check_data(state: dict[str, Any], training: Training) -> None:
    videos, classes = len(training.split), list(training.split.classes)
    if state["videos"] != videos or state["classes"] != classes:
        raise EngineError(
            f"{training.config.out} was trained on {state['videos']} videos of "
            f"{len(state['classes'])} classes, {training.config.data} has {videos} of "
            f"{len(classes)}: give it the same shards, or another --out"
        )


def load_weights_into(model: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        EngineError: when it belongs to another architecture, naming the first difference.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise EngineError(
            f"the checkpoint of {source} belongs to another network than {type(model).__name__} "
            f"as configured: {lines[0] if lines else error}"
        ) from error
