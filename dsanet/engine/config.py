"""Settings of a training run: one dataclass for each group of keys."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
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
    """Size of the global batch.

    Attributes:
        videos: videos per optimiser step, over all processes; a run cannot change it later.
        per_gpu: limit of videos per forward pass and process; lower it if GPU memory is short. The
            step then has several passes, whose gradients are accumulated.
    """

    videos: int = 96
    per_gpu: int = 12

    def __post_init__(self) -> None:
        for name in ("videos", "per_gpu"):
            value = getattr(self, name)
            require(value >= 1, f"batch.{name}", "be at least 1", value, UsageError)


@dataclass(frozen=True)
class ValidationConfig:
    """Validation during training, on U centre snippets and one centre crop per video.

    Attributes:
        split: split to validate on; null: no validation.
        every: epochs from one validation to the next; the last epoch always has one.
        per_gpu: videos per forward pass and process; null: as `batch.per_gpu`.
        metric: metric that chooses the best checkpoint: top-1 accuracy, or mean average
            precision.
        bad_share: share of unreadable videos above which validation is an error; a quarter of a
            small split, at most 8 videos, is always allowed.
    """

    split: str | None = "val"
    every: int = 1
    per_gpu: int | None = None
    metric: Literal["top1", "map"] = "top1"
    bad_share: float = 0.01

    def __post_init__(self) -> None:
        check_choices(self, "validation.", UsageError)
        require(self.every >= 1, "validation.every", "be at least 1", self.every, UsageError)
        videos = self.per_gpu
        valid = videos is None or videos >= 1
        require(valid, "validation.per_gpu", "be at least 1, or null", videos, UsageError)
        share = self.bad_share
        require(0 <= share <= 1, "validation.bad_share", "be in [0, 1]", share, UsageError)


@dataclass(frozen=True)
class RuntimeConfig:
    """How the hardware is used; only `sync_batchnorm` changes results beyond rounding.

    Attributes:
        device: auto (a GPU if one is visible), cpu, cuda or cuda:N.
        precision: of forward and backward passes; auto is bf16 on a GPU (fp16 on one without bf16)
            and fp32 on a CPU.
        sync_batchnorm: compute BatchNorm's statistics over all processes instead of in each; needs
            GPUs and `compile: false`.
        gradient_hook: send gradients between GPUs as `bf16`, half the size, or unchanged (`none`);
            auto is bf16 on GPUs.
        bucket_mb: size in MB of the buckets in which DDP sends gradients. A compiled backward pass
            delivers all gradients at its end, so small buckets would overlap nothing and cost more
            calls. torch's own default is 25.
        preflight: before training, check shards and disk space, and try a step and a validation
            batch.
        deterministic: use only deterministic algorithms; slower on a GPU.
        max_requeues: a Slurm job that was restarted this often is not requeued at its time limit.
        watchdog_minutes: print the stacks of all threads when a step takes longer; 0: never.
        timeout_minutes: limit of a wait for other processes during the run; raise it where copying
            the shards to a node takes longer.
        rendezvous_minutes: limit of the wait for all processes to start.
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
    """What is printed and recorded during training.

    Attributes:
        every: steps from one line on screen and in metrics.jsonl to the next.
        ids: write a line for every step, with its sample ids.
        tensorboard: also write TensorBoard files (needs the extra `tensorboard`).
    """

    every: int = 20
    ids: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        require(self.every >= 1, "log.every", "be at least 1", self.every, UsageError)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Attributes:
        data: folder of the shard set, or its address (https://, s3://, ...).
        model: name of the network, such as dsa_i3d_r50; docs/models.md lists them.
        out: run folder; if it holds a run, that is continued.
        recipe: name of a recipe in dsanet/recipes, read before --config files.
        split: split to train on.
        weights: initial weights: a file (an ImageNet ResNet, a checkpoint, or one of another
            project, see docs/models.md), a run folder, a folder of the Hugging Face hub, or the
            name of one of timm's ResNets there, such as resnet50.a1_in1k.
        resume: checkpoint file or run folder to continue from, if `out` has no checkpoint.
        seed: seed of the order of videos, augmentation, initial weights and dropout.
        compile: use torch.compile; null: on a GPU only.
        epoch_limit: stop after this many epochs, with the schedule of `schedule.epochs`.
        profile: FIRST:COUNT, such as 20:5: write a trace of COUNT steps to OUT/profile, from the
            step on that is number FIRST of this start.
        profile_memory: on a GPU, record the stack of each allocation, for the snapshots of its
            memory that are written after the profiled steps and when it runs out.
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
    profile: str | None = None
    profile_memory: bool = False
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
        profiled_steps(self.profile)


def profiled_steps(text: str | None) -> range | None:
    """The steps that FIRST:COUNT names, such as "20:5"; None for None.

    Raises:
        UsageError: for any other text.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, count = (int(part) for part in match.groups()) if match else (0, 0)
    require(min(first, count) >= 1, "profile", "be FIRST:COUNT, such as 20:5", text, UsageError)
    return range(first, first + count)


def check_not_empty(settings: Any, *names: str) -> None:
    """Raise UsageError for an empty setting, such as an unset variable of a shell script."""
    for name in names:
        if not getattr(settings, name):
            raise UsageError(f"--{name} must not be empty")


def plain(value: Any) -> Any:
    """Convert settings to types of YAML and JSON: dictionaries, lists, numbers and text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (key with dots, value)."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def as_text(value: Any) -> str:
    """A setting's value as it is written on a command line."""
    return "null" if value is None else str(value)


def dump(config: TrainConfig) -> str:
    """The merged configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(plain(config), sort_keys=False)
