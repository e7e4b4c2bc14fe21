"""Building the parts of a training run from its configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

import dsanet
from dsanet.engine import execution
from dsanet.engine.batching import Layout, plan_steps
from dsanet.engine.checkpoint import find_checkpoint
from dsanet.engine.config import TrainConfig, plain
from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.validate import Validator
from dsanet.engine.folder_lock import FolderLock
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.first_process import on_first_process
from dsanet.engine.launch.signals import Signals
from dsanet.engine.optim import WeightAverage, build_optimizer
from dsanet.engine.reader_state import gather_states, open_epoch
from dsanet.engine.report.console import Console
from dsanet.engine.report.tensorboard import TensorBoardWriter
from dsanet.engine.run_folder import RunFolder
from dsanet.engine.run_state import RunState
from dsanet.errors import UserError
from pipelines import Batch, LoaderConfig, Rank, TrainLoader, open_data
from shards import Split


@dataclass
class Training:
    """The parts of a training run.

    Attributes:
        world, console, signals, folder: the services around it.
        state: what training changes and checkpoints hold, with the plain network.
        network: the same network, compiled and distributed: the one to call.
        loader: training batches.
        validator: None without a validation split.
        tensorboard: None on all processes but rank 0, and without `log.tensorboard`.
        lock: of the run folder, on rank 0.
    """

    config: TrainConfig
    world: World
    console: Console
    signals: Signals
    folder: RunFolder
    state: RunState
    network: nn.Module
    loader: TrainLoader
    validator: Validator | None = None
    tensorboard: TensorBoardWriter | None = None
    lock: FolderLock | None = None
    _opened: tuple[int, Iterator[Batch]] | None = field(default=None, repr=False)

    def batches(self) -> Iterator[Batch]:
        """Batches of this process from the position of the run to the end of its epoch."""
        state, opened = self.state, self._opened
        self._opened = None
        if opened is not None and opened[0] == state.samples:
            return opened[1]
        epoch, start = divmod(state.samples, state.layout.samples_per_epoch)
        reader = state.reader if start else None
        return open_epoch(self.loader, epoch, start, reader, self.console.print)

    def first_batch(self) -> Batch:
        """The next batch of the run, which stays the first one of `batches`.

        Raises:
            LoaderError: when it cannot be read or decoded.
        """
        batches = self.batches()
        batch = next(batches)
        self._opened = (self.state.samples, itertools.chain([batch], batches))
        return batch

    def replace_loaders(self, settings: LoaderConfig) -> None:
        """Replace both loaders by ones with other settings, which never change the samples."""
        self._opened = None
        self.loader.close()
        self.config = replace(self.config, loader=settings)
        local = replace(self.config, loader=replace(settings, stage="off"))  # tars are staged
        split, layout = self.loader.split, self.state.layout
        self.loader = build_loader(local, self.world, split, layout, self.folder.quarantine)
        if self.validator is not None:
            self.validator.replace_loader(settings)

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint; every process must call it.

        score: of the validation just before, if there was one.
        """
        self.check_lock()
        state = self.state
        self.world.average_buffers(state.model)
        if state.average:
            self.world.average_buffers(state.average.model)
        readers = None
        if self.config.loader.reader == "webdataset":
            readers = gather_states(self.world, state.reader, state.samples)
        if self.world.main:
            content = state.state_dict(score=score, readers=readers)
            path = self.folder.checkpoints.save(state.step, content)
            self.folder.checkpoints.update_best(path, score)
        self.world.barrier()

    def check_lock(self) -> None:
        """Check that no other command has taken the run folder over.

        Raises:
            EngineError: naming the new owner.
        """
        if self.lock is not None:
            self.lock.check()

    def close(self) -> None:
        """Release loaders and files."""
        self.loader.close()
        if self.validator is not None:
            self.validator.close()
        if self.tensorboard is not None:
            self.tensorboard.close()


def build_training(
    config: TrainConfig, world: World, console: Console, signals: Signals
) -> Training:
    """Build every part of a run, in the state before its first step.

    Raises:
        EngineError, ModelError, ShardError, LoaderError: for what the user can fix.
    """
    train, val = open_splits(config)
    layout = plan_steps(config, world.size, len(train))
    folder = RunFolder(config.out, config.checkpoint.keep)
    execution.configure(config.runtime, world.device)
    state = build_state(config, world, train, layout, folder, console)
    network = execution.compiled(state.model, config.compile, world.device, console.print)
    training = Training(
        config,
        world,
        console,
        signals,
        folder,
        state,
        network=execution.distributed(network, world, config.runtime),
        loader=build_loader(config, world, train, layout, folder.quarantine),
    )
    if config.log.tensorboard and world.main:
        training.tensorboard = TensorBoardWriter(folder.path / "tensorboard")
    if val is not None:
        training.validator = Validator(
            config, world, val, state.precision, console, folder.quarantine
        )
        training.validator.loader.ending = lambda: signals.ending
    training.loader.ending = lambda: signals.ending
    return training


def build_state(
    config: TrainConfig,
    world: World,
    split: Split,
    layout: Layout,
    folder: RunFolder,
    console: Console,
) -> RunState:
    """Network, optimiser, scaler and averaged weights on the device, before the first step.

    Raises:
        EngineError, ModelError: for what the user can fix.
    """
    precision = execution.pick_precision(config.runtime.precision, world.device, training=True)
    model = build_network(config, len(split.classes))
    load_initial_weights(config, world, model, folder, console)
    model.to(world.device)
    if config.runtime.sync_batchnorm:
        model = execution.synchronised(model, world, config.compile)
    return RunState(
        config,
        split,
        layout,
        precision,
        model,
        optimizer=build_optimizer(model, config.optim, fused=world.device.type == "cuda"),
        scaler=execution.build_scaler(precision, world.device),
        average=WeightAverage(model, config.optim.ema) if config.optim.ema else None,
    )


def load_initial_weights(
    config: TrainConfig, world: World, model: nn.Module, folder: RunFolder, console: Console
) -> None:
    """Load `weights`, unless the run continues from a checkpoint: then the file may be gone.

    Raises:
        EngineError, ModelError: when the file cannot be loaded.
    """
    if not config.weights:
        return
    given = Path(config.weights)

    def choose() -> str:
        if config.resume or folder.checkpoints.files():
            return ""
        is_run = (given / "checkpoints").is_dir()
        return str(find_checkpoint(given, "last", console.print) if is_run else given)

    if path := on_first_process(world, choose):
        console.print(f"weights: {dsanet.load_weights(model, Path(path))}")
    else:
        console.print(f"weights: those of the checkpoint that the run continues from, not {given}")


def build_loader(
    config: TrainConfig, world: World, split: Split, layout: Layout, quarantine: Path | None
) -> TrainLoader:
    """Training batches for this process."""
    return TrainLoader(
        split,
        config.sampling,
        config.augment,
        config.loader,
        seed=config.seed,
        batch_size=layout.micro * layout.accumulation,
        rank=Rank(world.rank, world.size, str(world.device)),
        quarantine=quarantine,
    )


def open_splits(config: TrainConfig) -> tuple[Split, Split | None]:
    """The training split, and the validation split if there is to be validation.

    Raises:
        UsageError: when their classes differ.
        ShardError, LoaderError: when one is missing, or cannot be fetched.
    """
    train = open_data(config.data, config.split, config.loader)
    if config.validation.split is None:
        return train, None
    try:
        val = open_data(config.data, config.validation.split, config.loader)
    except UserError as error:
        remedy = "to train without validation, give --validation.split null"
        raise type(error)(f"{error}; {remedy}") from None
    if tuple(val.classes) != tuple(train.classes):
        raise UsageError(
            f"{config.data}: splits {train.name} and {val.name} have different classes "
            f"({len(train.classes)} and {len(val.classes)}); shard both with the same --classes"
        )
    return train, val


def build_network(config: TrainConfig, classes: int) -> nn.Module:
    """The plain network with its seeded initial weights, on the CPU.

    Raises:
        ModelError: for an unknown name or option.
        UsageError: when it cannot be trained on this number of snippets.
    """
    torch.manual_seed(config.seed)
    segments = config.sampling.segments
    options = plain(config.network)
    model = dsanet.build_model(config.model, num_classes=classes, segments=segments, **options)
    if model.train_segments != segments:
        raise UsageError(
            f"sampling.segments must be 1 for {config.model}, got {segments}; to average the "
            f"snippets of a video take tsn_{config.model}"
        )
    return model
