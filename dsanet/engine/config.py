"""Settings of a training run: one dataclass for each group of keys."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from dsanet import NetworkConfig
from dsanet.engine.checkpoint import CheckpointConfig
from dsanet.engine.errors import UsageError
from dsanet.engine.loss import LossConfig
from dsanet.engine.optim import OptimConfig, ScheduleConfig
from dsanet.errors import check_choices, require
from pipelines import AugmentConfig, LoaderConfig, SamplingConfig


@dataclass(frozen=True)
class BatchConfig:
    """The global batch.

    Attributes:
        videos: videos of one optimiser step over all processes; a run keeps it for life.
        per_gpu: most videos that one process holds in one forward pass; the rest is accumulated.
    """

    videos: int = 96
    per_gpu: int = 12

    def __post_init__(self) -> None:
        for name in ("videos", "per_gpu"):
            value = getattr(self, name)
            require(value >= 1, f"batch.{name}", "be at least 1", value, UsageError)


@dataclass(frozen=True)
class ValidationConfig:
    """Validation during training: U centre snippets, one centre crop.

    Attributes:
        split: split of the shard set; null trains without validation.
        every: epochs between validations; the last epoch always has one.
        per_gpu: videos of one forward pass; null: as in training.
        metric: decides which checkpoint is best.
    """

    split: str | None = "val"
    every: int = 1
    per_gpu: int | None = None
    metric: Literal["top1", "map"] = "top1"

    def __post_init__(self) -> None:
        check_choices(self, "validation.", UsageError)
        require(self.every >= 1, "validation.every", "be at least 1", self.every, UsageError)
        videos = self.per_gpu
        valid = videos is None or videos >= 1
        require(valid, "validation.per_gpu", "be at least 1, or null", videos, UsageError)


@dataclass(frozen=True)
class RuntimeConfig:
    """How the machine is used; nothing here changes what is computed beyond rounding.

    Attributes:
        device: `auto` takes a GPU when one is visible; or cpu, cuda, cuda:N.
        precision: `auto` is bf16 on a GPU and fp32 on a CPU; fp16 scales its loss.
        sync_batchnorm: BatchNorm over all processes instead of each one's own (GPUs; no compile).
        gradient_hook: `bf16` halves what all-reduce moves; `auto` does so over NCCL only.
        bucket_mb: size of DDP's buckets; a compiled backward delivers all gradients at its end,
            so few large ones.
        preflight: try shards, disk, one step and one validation batch before the run.
        deterministic: only algorithms that give the same bits every time.
        max_requeues: restarts by SLURM after which a signalled job is not queued again.
        watchdog_minutes: print all stacks when a step takes longer; 0: never.
        timeout_minutes: how long a process waits for the others, the longest for a node that
            copies its shards.
        rendezvous_minutes: how long a process waits at the start until all have come.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    sync_batchnorm: bool = False
    gradient_hook: Literal["auto", "none", "bf16"] = "auto"
    bucket_mb: int = 200
    preflight: bool = True
    deterministic: bool = False
    max_requeues: int = 50
    watchdog_minutes: float = 20.0
    timeout_minutes: float = 60.0
    rendezvous_minutes: float = 10.0

    def __post_init__(self) -> None:
        check_choices(self, "runtime.", UsageError)
        for name, least in (("bucket_mb", 1), ("max_requeues", 0), ("watchdog_minutes", 0)):
            value = getattr(self, name)
            require(value >= least, f"runtime.{name}", f"be at least {least}", value, UsageError)
        for name in ("timeout_minutes", "rendezvous_minutes"):
            value = getattr(self, name)
            require(value > 0, f"runtime.{name}", "be greater than 0", value, UsageError)


@dataclass(frozen=True)
class LogConfig:
    """What is written while training.

    Attributes:
        every: steps between lines on screen and in metrics.jsonl.
        ids: record the sample ids of every step in metrics.jsonl.
        tensorboard: also write TensorBoard files (needs the extra `tensorboard`).
    """

    every: int = 20
    ids: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        require(self.every >= 1, "log.every", "be at least 1", self.every, UsageError)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that defines a run.

    Attributes:
        data: folder of the shard set, or its address (https://, s3://, ...).
        model: name of the network.
        out: run folder; an existing one is continued.
        recipe: name of a recipe in dsanet/recipes, read before --config files.
        split: split to train on.
        weights: weights to start from: ImageNet, a checkpoint, or another project's layout.
        resume: checkpoint file or run folder to continue from when the run folder has none.
        seed: decides order, draws, initial weights and dropout.
        compile: torch.compile; null: on a GPU only.
        epoch_limit: stop after so many epochs without shortening the schedule.
    """

    data: str
    model: str
    out: str
    recipe: str | None = None
    split: str = "train"
    weights: str | None = None
    resume: str | None = None
    seed: int = 0
    compile: bool | None = None
    epoch_limit: int | None = None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_not_empty(self, "data", "model", "out")
        require(self.seed >= 0, "seed", "be at least 0", self.seed, UsageError)
        limit = self.epoch_limit
        valid = limit is None or limit >= 1
        require(valid, "epoch_limit", "be at least 1, or null", limit, UsageError)


def check_not_empty(settings: Any, *names: str) -> None:
    """Raise UsageError for an empty setting, as an unset variable of a shell script gives it."""
    for name in names:
        if not getattr(settings, name):
            raise UsageError(f"--{name} must not be empty")


def plain(value: Any) -> Any:
    """A setting as YAML and JSON know it: dictionaries, lists, numbers, text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def dump(config: TrainConfig) -> str:
    """The merged configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(plain(config), sort_keys=False)
