"""Settings of a run: recipe, then files, then dotted keys of the command line."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from dsanet import NetworkConfig
from dsanet.engine.checkpoint import CheckpointConfig
from dsanet.engine.cli_errors import explain
from dsanet.engine.errors import UsageError
from dsanet.engine.loss import LossConfig
from dsanet.engine.optim import OptimConfig, ScheduleConfig
from dsanet.errors import check_choices, require
from pipelines import AugmentConfig, LoaderConfig, SamplingConfig

Settings = TypeVar("Settings")
RECIPES = Path(__file__).parent.parent / "recipes"


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


def recipes() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """File of a recipe.

    Raises:
        UsageError: for a name that is not there, with the nearest one.
    """
    if name not in recipes():
        near = difflib.get_close_matches(name, recipes(), 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(recipes())}"
        raise UsageError(f"no recipe called {name!r}; {hint}")
    return RECIPES / f"{name}.yaml"


def _take(words: list[str], flag: str) -> tuple[list[str], list[str]]:
    """The values given to a flag, in either spelling, and the command line without them."""
    values, rest = [], []
    left = iter(words)
    for word in left:
        if word == flag:
            values.append(next(left, ""))
        elif word.startswith(f"{flag}="):
            values.append(word.split("=", 1)[1])
        else:
            rest.append(word)
    return values, rest


def _arranged(argv: Sequence[str]) -> list[str]:
    """The command line in order of precedence: the recipe's file, other files, single keys.

    A run that is continued without recipe and file brings its own settings.
    """
    files, words = _take(list(argv), "--config")
    recipe, _ = _take(words, "--recipe")
    out, _ = _take(words, "--out")
    if recipe:
        files.insert(0, str(recipe_path(recipe[-1])))
    elif out and not files and (saved := Path(out[-1]) / "config.yaml").is_file():
        files.insert(0, str(saved))
    for path in files:
        check_file(Path(path))
    return [*(f"--config={path}" for path in files), *words]


def check_file(path: Path) -> None:
    """Refuse a file of settings that is none; one that is not there is the parser's to name.

    Raises:
        UsageError: naming the file and the place in it.
    """
    if not path.is_file():
        return
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = "it is no text in UTF-8" if isinstance(error, ValueError) else _place(error)
        raise UsageError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no settings: it must have lines such as `seed: 1`")


def _place(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{problem or error}{where}"


def parse_dataclass(parser: ArgumentParser, kind: type[Settings], argv: Sequence[str]) -> Settings:
    """Parse a command line into a dataclass, whose fields become its keys.

    Raises:
        UsageError: with one line that names the key.
    """
    parser.add_class_arguments(kind)
    try:
        values = parser.parse_args(list(argv))
        made = dict(parser.instantiate(values))
    except ArgumentError as error:
        raise UsageError(
            explain(str(error), [action.dest for action in parser._actions])
        ) from error
    made.pop("config", None)
    return kind(**made)


def parse_train(argv: Sequence[str] | None = None) -> TrainConfig:
    """Merge recipe, files and command line; unknown keys are errors.

    Raises:
        UsageError: with one line that names the key.
    """
    parser = ArgumentParser(
        prog="train.py",
        exit_on_error=False,
        allow_abbrev=False,
        description="Train a network on a shard set; run it again to continue.",
    )
    parser.add_argument("--config", action="config", help="YAML file; several are merged in order")
    return parse_dataclass(parser, TrainConfig, _arranged(sys.argv[1:] if argv is None else argv))


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


def load_saved(path: Path) -> TrainConfig:
    """Configuration of an existing run.

    Raises:
        UsageError: when the file is missing or no configuration.
    """
    if not path.is_file():
        raise UsageError(f"{path.parent} is no run folder: it has no {path.name}")
    return parse_train([f"--config={path}"])
