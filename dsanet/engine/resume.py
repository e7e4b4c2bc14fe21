"""Continuing a run: with the same settings, on the same data, from its newest intact checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dsanet.engine.checkpoint import Report, find_checkpoint
from dsanet.engine.command_line import load_saved
from dsanet.engine.config import TrainConfig, as_text, flatten, plain
from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.first_process import on_first_process
from dsanet.engine.reader_state import own_state
from dsanet.engine.run_folder import RunFolder
from dsanet.engine.run_state import CheckpointContent, read_checkpoint
from dsanet.engine.setup import Training

# Settings that a run keeps for life: with another value its steps would be those of another run.
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


def open_folder(
    config: TrainConfig, world: World, processes: list[str], report: Report = print
) -> None:
    """Create the run folder, or check that it belongs to this run, and record this start.

    processes: host and device of each, for the record.

    Raises:
        UsageError: when the folder belongs to another run.
        EngineError: when it cannot be written.
    """

    def prepare() -> str:
        folder = RunFolder(config.out)
        if folder.checkpoints.files():
            check_same_run(_saved_settings(folder, report), config)
        folder.prepare(config, processes, report)
        return ""

    on_first_process(world, prepare)


def _saved_settings(folder: RunFolder, report: Report) -> dict[str, Any]:
    """Settings of the run in a folder, from its checkpoint where config.yaml is damaged."""
    try:
        return dict(plain(load_saved(folder.config)))
    except UsageError as error:
        report(f"WARNING: {error}; using the settings in the newest checkpoint instead")
    newest = folder.checkpoints.newest_intact(report)
    assert newest is not None, "the caller has seen a checkpoint"
    return read_checkpoint(newest)["config"]


def check_same_run(saved: dict[str, Any], config: TrainConfig) -> None:
    """Refuse to continue a run that was started with `saved` settings as another one.

    Raises:
        UsageError: naming the first key that differs.
    """
    for key in FIXED:
        before, now = _lookup(saved, key), _lookup(plain(config), key)
        if before == now:
            continue
        if isinstance(before, dict):
            name = next(k for k in [*now, *before] if before.get(k) != now.get(k))
            key, before, now = f"{key}.{name}", before.get(name), now.get(name)
        raise UsageError(
            f"{config.out}: was started with {key} = {before}, now {key} = {now}; continue it with "
            "the same value, or give another --out"
        )


def _lookup(settings: dict[str, Any], key: str) -> Any:
    for name in key.split("."):
        settings = settings[name]
    return settings


def restore(training: Training) -> None:
    """Continue from the newest intact checkpoint of the run, or from `resume`, if there is one.

    Raises:
        EngineError: when the checkpoint belongs to other data or another network.
    """
    config, state = training.config, training.state
    path = pick_checkpoint(training)
    content = read_checkpoint(path) if path else None
    if path and content:
        state.load_state_dict(content, path)
        in_mid_epoch = state.samples % state.layout.samples_per_epoch
        if config.loader.reader == "webdataset" and in_mid_epoch:
            state.reader = own_state(content, training.world, training.console.print)
    if training.world.main:
        _repair_folder(training, content)
    if content:
        training.console.print(
            f"continuing after step {state.step} (epoch {state.epoch:.2f}), {state.samples} videos"
        )
        if changed := changed_settings(content["config"], plain(config)):
            training.console.print(f"changed since that checkpoint: {'; '.join(changed)}")


def changed_settings(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings of a continued run that differ from those of its checkpoint, as `KEY: OLD -> NEW`.

    Where the files are (`out`, `data`, `weights`, `resume`) is left out, and settings that the
    version which wrote the checkpoint did not have.
    """
    places = ("out", "data", "weights", "resume")
    before, after = dict(flatten(saved)), dict(flatten(now))
    return [
        f"{key}: {as_text(before[key])} -> {as_text(value)}"
        for key, value in after.items()
        if key not in places and key in before and before[key] != value
    ]


def pick_checkpoint(training: Training) -> Path | None:
    """The checkpoint to start from: rank 0 chooses and verifies it, and tells all others.

    Raises:
        EngineError: when all checkpoints are damaged, or a process does not see the chosen one.
    """
    checkpoints, resume = training.folder.checkpoints, training.config.resume

    def choose() -> str:
        path = checkpoints.newest_intact(training.console.print, set_aside=True)
        if path is None and resume:
            path = find_checkpoint(Path(resume), "last", training.console.print)
        return str(path or "")

    name = on_first_process(training.world, choose)
    if not name:
        return None
    visible = training.world.gather(np.array([Path(name).is_file()]))
    if missing := [rank for rank, flag in enumerate(visible) if not flag.all()]:
        raise EngineError(
            f"{name}: rank 0 sees this file, rank {missing[0]} does not; the file system may show "
            "new files late: run the same command again"
        )
    return Path(name)


def _repair_folder(training: Training, content: CheckpointContent | None) -> None:
    """Bring records and mark of the best checkpoint to the position that the run continues from.

    A run may have been killed between a checkpoint and its mark, or before its first checkpoint.
    """
    folder, state = training.folder, training.state
    folder.truncate_metrics(state.samples, state.validated, training.console.print)
    files = folder.checkpoints.files()
    if content and files:
        folder.checkpoints.update_best(files[-1], content["score"])
