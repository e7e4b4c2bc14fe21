"""The state of a training run, and the checkpoint that it is saved to and loaded from.

`CheckpointContent` lists the keys of a checkpoint file, `RunState.state_dict` fills them in,
`RunState.load_state_dict` takes them back, and `read_checkpoint` checks them in a file.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from dsanet import NetworkConfig
from dsanet.engine.batching import Layout
from dsanet.engine.checkpoint import load_file
from dsanet.engine.checkpoint_schema import check_content, check_momentum
from dsanet.engine.config import TrainConfig, plain
from dsanet.engine.environment import versions
from dsanet.engine.errors import EngineError
from dsanet.engine.optim import WeightAverage, zero_momentum
from dsanet.errors import printable
from shards import Split

FORMAT = 1
# Keys that the first checkpoints of this format do not have, and what stands for them.
ADDED: dict[str, Any] = {"precision": None, "readers": None, "data": None}

Weights = dict[str, Tensor]


class ReaderStates(TypedDict):
    """Where the webdataset readers of all processes are in the epoch.

    samples: position of the run at which they were taken.
    states: DALI's state of each reader, by rank, uint8 (bytes,).
    """

    samples: int
    states: list[Tensor]


class DataIdentity(TypedDict):
    """What tells one training split from another, wherever its files are.

    effective_sha256: of its manifest: keys, labels and frames, whatever their order.
    order_sha256: of the keys in the order of the sample ids.
    """

    effective_sha256: str | None
    order_sha256: str


class CheckpointContent(TypedDict):
    """Every key of a checkpoint file.

    format: version of this list.
    score: of the validation just before the checkpoint; None in mid-epoch.
    samples: position in training, counted in videos of the whole run.
    validated: epochs that are complete, validation included.
    model: weights and buffers of the network.
    average: the same of the averaged weights (`optim.ema`), or None.
    optimizer, scaler: state dicts of torch.
    precision: of the forward passes; the scaler's scale belongs to it.
    config: all settings of the run, as `config.plain` writes them.
    classes: names, in the order of the logits.
    videos: number of videos in the training split.
    shards: settings with which the training split was sharded.
    versions: of Python and packages.
    readers: None unless `loader.reader` is webdataset.
    data: identity of the training split; None in older files.
    """

    format: int
    score: float | None
    samples: int
    validated: int
    model: Weights
    average: Weights | None
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    precision: str | None
    config: dict[str, Any]
    classes: list[str]
    videos: int
    shards: dict[str, Any]
    versions: dict[str, str]
    readers: ReaderStates | None
    data: DataIdentity | None


def identify_data(split: Split) -> DataIdentity:
    """The identity of a split: the same for its copies, another for other videos or another order.

    The position of a run is a number of sample ids, so it holds in one order alone.
    """
    order = hashlib.sha256()
    for index in range(len(split)):
        order.update(f"{split.key(index)}\n".encode())
    effective = split.manifest.get("effective_sha256")
    return {"effective_sha256": effective, "order_sha256": order.hexdigest()}


def read_checkpoint(path: Path) -> CheckpointContent:
    """Read a checkpoint file onto the CPU, with the keys that older files lack filled in.

    The hash in its name is not checked, see `checkpoint.verify`.

    Raises:
        DamagedError: when the file is missing or damaged.
        EngineError: when it is not a checkpoint of a run, or of another format.
    """
    content = load_file(path)
    if not isinstance(content, dict) or "format" not in content:
        raise EngineError(
            f"{path}: was not written by train.py; give a run folder, or a .pt file of one"
        )
    if content["format"] != FORMAT:
        found = printable(repr(content["format"]), 80)
        raise EngineError(
            f"{path}: has format {found}, this version of the project reads {FORMAT}; use the "
            "version that wrote it (environment.json of its run names the commit)"
        )
    content = ADDED | content
    if missing := CheckpointContent.__required_keys__ - content.keys():
        raise EngineError(f"{path}: lacks {', '.join(sorted(missing))}; give another checkpoint")
    check_content(content, path)
    config = content["config"]
    config["network"] = plain(NetworkConfig()) | config["network"]
    return cast(CheckpointContent, content)


def weights_to_evaluate(content: CheckpointContent) -> Weights:
    """The averaged weights of a checkpoint where the run has them, else the plain ones."""
    return content["average"] or content["model"]


@dataclass
class RunState:
    """Everything that training changes, with the position of the run.

    Attributes:
        model: the plain network, not compiled and not distributed.
        precision: of the forward passes.
        average: averaged weights, if `optim.ema` asks for them.
        samples: position in training, counted in videos of the whole run.
        validated: epochs that are complete, validation included.
        reader: DALI's state of this process's webdataset reader after the last step.
    """

    config: TrainConfig
    split: Split
    layout: Layout
    precision: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None
    samples: int = 0
    validated: int = 0
    reader: bytes | None = None

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return self.samples // self.layout.videos

    @property
    def epoch(self) -> float:
        """Position in epochs."""
        return self.samples / self.layout.samples_per_epoch

    @cached_property
    def data(self) -> DataIdentity:
        """Identity of the training split."""
        return identify_data(self.split)

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that validation scores: with averaged weights where the run has them."""
        return self.average.model if self.average else self.model

    def state_dict(
        self, *, score: float | None = None, readers: ReaderStates | None = None
    ) -> CheckpointContent:
        """The content of a checkpoint; its tensors are those of the run, not copies."""
        return {
            "format": FORMAT,
            "score": score,
            "samples": self.samples,
            "validated": self.validated,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "precision": self.precision,
            "config": plain(self.config),
            "classes": list(self.split.classes),
            "videos": len(self.split),
            "shards": self.split.manifest["settings"],
            "versions": versions(),
            "readers": readers,
            "data": self.data,
        }

    def load_state_dict(self, content: CheckpointContent, source: Path) -> None:
        """Continue from the content of a checkpoint, all but the reader's state.

        source: the file it was read from, for messages.

        Raises:
            EngineError: when it was trained on other data, or belongs to another network.
        """
        self._check_data(content, source)
        _load_weights(self.model, content["model"], source)
        if self.average:  # where it is new to the run, it starts from the plain weights
            _load_weights(self.average.model, weights_to_evaluate(content), source)
        _load_optimizer(self.optimizer, content["optimizer"], source)
        check_momentum(content, _shapes(self.optimizer), source)
        if content["precision"] == self.precision:
            _load_scaler(self.scaler, content["scaler"], source)
        self.samples, self.validated = content["samples"], content["validated"]

    def _check_data(self, content: CheckpointContent, source: Path) -> None:
        videos, classes = len(self.split), list(self.split.classes)
        if content["videos"] != videos or content["classes"] != classes:
            raise EngineError(
                f"{source}: was trained on {content['videos']} videos of "
                f"{len(content['classes'])} classes, {self.config.data} has {videos} of "
                f"{len(classes)}; give the same shards, or another --out"
            )
        if content["data"] is None or content["data"] == self.data:
            return
        before, now = content["data"]["effective_sha256"], self.data["effective_sha256"]
        what = "the same videos in another order, as another --seed of tools/shard.py gives it"
        if before != now:
            what = f"other videos, labels or frames (effective_sha256 {now}, not {before})"
        saved = content["config"]
        raise EngineError(
            f"{source}: was trained on {saved['split']} of {saved['data']}, {self.split.name} of "
            f"{self.config.data} has {what}; give the shards of this run, or another --out"
        )


def _load_weights(model: nn.Module, weights: Weights, source: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise EngineError(
            f"{source}: does not fit the configured network {type(model).__name__}: "
            f"{printable(lines[0] if lines else error, 300)}"
        ) from error


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], source: Path) -> None:
    """Load momentum; settings such as weight decay stay as they are configured now."""
    groups = optimizer.param_groups
    settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise EngineError(
            f"{source}: groups its parameters in another way; continue with the same "
            "--optim.decay_norm_and_bias"
        ) from error
    for group, configured in zip(optimizer.param_groups, settings, strict=True):
        group.update(configured)
    zero_momentum(optimizer)


def _load_scaler(scaler: torch.amp.GradScaler, state: dict[str, Any], source: Path) -> None:
    numbers = all(isinstance(v, (int, float)) and math.isfinite(v) for v in state.values())
    try:
        if not numbers:
            raise ValueError("holds values that are not finite numbers")
        scaler.load_state_dict(state)
    except (ValueError, KeyError, RuntimeError) as error:
        raise EngineError(
            f"{source}: scaler cannot be used ({error}); give another checkpoint"
        ) from (error)


def _shapes(optimizer: torch.optim.Optimizer) -> list[torch.Size]:
    """Shapes of all parameters in the order of their numbers in a state dict."""
    return [p.shape for group in optimizer.param_groups for p in group["params"]]
