"""A run put together: network, optimiser, loaders, folder, and where it stands."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import dsanet
from dsanet.engine import execution
from dsanet.engine.batching import Layout, plan_steps
from dsanet.engine.checkpoint import FORMAT, find_checkpoint
from dsanet.engine.config import TrainConfig, plain
from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.validate import Validator
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.signals import Signals
from dsanet.engine.optim import WeightAverage, build_optimizer
from dsanet.engine.reader_state import gather_places
from dsanet.engine.report.console import Console
from dsanet.engine.report.tensorboard import Board
from dsanet.engine.run_folder import RunFolder, versions
from pipelines import Rank, TrainLoader, open_data
from shards import Split


@dataclass
class Training:
    """A run.

    Attributes:
        model: the plain network: what checkpoints hold.
        network: the same, compiled and distributed: what is called.
        samples: position in training, counted in videos of the whole run.
        validated: epochs that are over, validation included.
        place: of this process's reader after the last step; the webdataset reader's alone.
    """

    config: TrainConfig
    world: World
    folder: RunFolder
    console: Console
    signals: Signals
    split: Split
    layout: Layout
    precision: str
    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loader: TrainLoader
    validator: Validator | None = None
    average: WeightAverage | None = None
    board: Board | None = None
    samples: int = 0
    validated: int = 0
    replaced: int = 0
    place: bytes | None = None
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return self.samples // self.layout.videos

    @property
    def epoch(self) -> float:
        """Position in epochs."""
        return self.samples / self.layout.samples_per_epoch

    @property
    def judged(self) -> nn.Module:
        """The network that validation looks at: averaged weights where they are kept."""
        return self.average.model if self.average else self.model

    def reseed(self, group: int) -> np.random.Generator:
        """Seed dropout and mixing by (seed, step, group of the step): no generator needs saving,
        and the draws do not depend on which process holds the group."""
        seeds = np.random.SeedSequence([self.config.seed, self.step, group])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        return np.random.default_rng(seeds)

    def state(self, samples: int | None = None, score: float | None = None) -> dict[str, Any]:
        """Everything a checkpoint holds, but the places of all readers."""
        return {
            "format": FORMAT,
            "score": score,
            "samples": self.samples if samples is None else samples,
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
        }

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint; all processes must call it."""
        self.world.average_buffers(self.model)
        if self.average:
            self.world.average_buffers(self.average.model)
        readers = None
        if self.config.loader.reader == "webdataset":
            readers = gather_places(self.world, self.place, self.samples)
        if self.world.main:
            state = self.state(score=score) | {"readers": readers}
            path = self.folder.checkpoints.save(self.step, state)
            self.folder.checkpoints.offer_best(path, score)
        self.world.barrier()
        self.saved_at = time.monotonic()

    def save_due(self) -> bool:
        """Whether a checkpoint within the epoch is due; the same answer on every process."""
        every = self.config.checkpoint.every_steps
        return bool(every) and self.step % every == 0

    def close(self) -> None:
        """Release loaders and files."""
        self.loader.close()
        if self.validator is not None:
            self.validator.close()
        if self.board is not None:
            self.board.close()


def open_splits(config: TrainConfig) -> tuple[Split, Split | None]:
    """Training and validation split.

    Raises:
        UsageError: when their classes differ.
        ShardError, LoaderError: when one is missing, or cannot be fetched.
    """
    train = open_data(config.data, config.split, config.loader)
    if config.validation.split is None:
        return train, None
    val = open_data(config.data, config.validation.split, config.loader)
    if tuple(val.classes) != tuple(train.classes):
        raise UsageError(
            f"splits {train.name} and {val.name} of {config.data} have different classes "
            f"({len(train.classes)} and {len(val.classes)}): shard both with the same --classes"
        )
    return train, val


def build_network(config: TrainConfig, classes: int) -> nn.Module:
    """The plain network with its seeded initial weights, on the CPU.

    Raises:
        ModelError: for an unknown name or option.
        UsageError: when it is not made for this number of snippets.
    """
    torch.manual_seed(config.seed)
    segments = config.sampling.segments
    options = plain(config.network)
    model = dsanet.build_model(config.model, num_classes=classes, segments=segments, **options)
    if model.train_segments != segments:
        raise UsageError(
            f"{config.model} is trained on one snippet at a time: add --sampling.segments 1, or "
            f"take tsn_{config.model}, which averages {segments}"
        )
    return model


def _initialise(model: nn.Module, config: TrainConfig, console: Console) -> None:
    if not config.weights:
        return
    path = Path(config.weights)
    report = dsanet.load_weights(model, find_checkpoint(path, "last") if path.is_dir() else path)
    console.say(f"weights: {report}")


def assemble(config: TrainConfig, world: World, console: Console, signals: Signals) -> Training:
    """Build every part of a run, at its beginning.

    Raises:
        EngineError, ModelError, ShardError, LoaderError: for what the user can mend.
    """
    train, val = open_splits(config)
    layout = plan_steps(config, world.size, len(train))
    folder = RunFolder(config.out, config.checkpoint.keep)
    precision = execution.pick_precision(config.runtime.precision, world.device, training=True)
    execution.configure(config.runtime, world.device)
    model = build_network(config, len(train.classes))
    _initialise(model, config, console)
    model.to(world.device)
    if config.runtime.sync_batchnorm:
        model = execution.synchronised(model, world, config.compile)
    network = execution.compiled(model, config.compile, world.device, console.say)
    network = execution.distributed(network, world, config.runtime)
    training = Training(
        config, world, folder, console, signals, train, layout, precision, model, network,
        optimizer=build_optimizer(model, config.optim, fused=world.device.type == "cuda"),
        scaler=execution.build_scaler(precision, world.device),
        loader=_train_loader(config, world, train, layout, folder),
        average=WeightAverage(model, config.optim.ema) if config.optim.ema else None,
    )  # fmt: skip
    if config.log.tensorboard and world.main:
        training.board = Board(folder.path / "tensorboard")
    if val is not None:
        training.validator = Validator(config, world, val, precision, console)
    return training


def _train_loader(
    config: TrainConfig, world: World, split: Split, layout: Layout, folder: RunFolder
) -> TrainLoader:
    return TrainLoader(
        split,
        config.sampling,
        config.augment,
        config.loader,
        seed=config.seed,
        batch_size=layout.micro * layout.accumulation,
        rank=Rank(world.rank, world.size, str(world.device)),
        quarantine=folder.quarantine,
    )
