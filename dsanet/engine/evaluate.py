"""Evaluation of a trained network: clips x crops views of every video, one table of scores."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse import ArgumentParser
from torch import nn

import dsanet
from dsanet.engine import execution
from dsanet.engine.checkpoint import find_checkpoint, load_checkpoint, write_atomic
from dsanet.engine.config import parse_dataclass, plain
from dsanet.engine.console import Console
from dsanet.engine.distributed import World
from dsanet.engine.errors import EngineError, UsageError, require
from dsanet.engine.metrics import scores_of
from dsanet.engine.record import versions
from dsanet.engine.views import Average, Scorer, ScoreTable, score_split
from pipelines import EvalLoader, LoaderConfig, SamplingConfig, open_data
from shards import Split


@dataclass(frozen=True)
class EvalConfig:
    """Everything that defines an evaluation.

    Attributes:
        data: folder of the shard set, or its address (https://, s3://, ...).
        checkpoint: run folder, or one of its .pt files.
        split: split of the shard set.
        clips: clips along the video, a multiple of U for a network that mixes snippets.
        crops: 1 (centre) or 3 (along the longer side).
        out: folder of metrics.json and scores.npz; null: RUN/eval-SPLIT-CLIPSxCROPS, with -best
            for the best checkpoint of a run.
        which: of a run folder, the `last` checkpoint or the `best` on validation.
        average: average the views' `logits`, as the release does, or their `softmax`.
        size: side of a crop; null: 256 for networks trained at 224, else the training size.
        batch: videos of one forward pass per process.
        device: `auto` takes a GPU when one is visible.
        precision: `auto` is bf16 on a GPU and fp32 on a CPU.
        compile: torch.compile; null: on a GPU only.
    """

    data: str
    checkpoint: str
    split: str = "val"
    clips: int = 8
    crops: Literal[1, 3] = 3
    out: str | None = None
    which: Literal["last", "best"] = "last"
    average: Average = "logits"
    size: int | None = None
    batch: int = 4
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool | None = None
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def __post_init__(self) -> None:
        require(self.clips >= 1, f"--clips {self.clips} must be 1 or more")
        require(self.batch >= 1, f"--batch {self.batch} must be 1 or more")
        met = self.size is None or self.size >= 1
        require(met, f"--size {self.size} must be 1 or more, or null")


def parse_eval(argv: Sequence[str] | None = None) -> EvalConfig:
    """Settings of the command line.

    Raises:
        UsageError: with one line that names the key.
    """
    parser = ArgumentParser(
        prog="eval.py", exit_on_error=False, description="Evaluate a run on a split."
    )
    return parse_dataclass(parser, EvalConfig, sys.argv[1:] if argv is None else argv)


@dataclass(frozen=True)
class Trained:
    """A network out of a checkpoint, with what its inputs must be like.

    Attributes:
        source: the file it came from.
        size: side of its training crops.
        samples: videos it was trained on, counting repetitions.
        shards: settings of the shards it was trained on.
    """

    model: nn.Module
    name: str
    sampling: SamplingConfig
    classes: tuple[str, ...]
    size: int
    source: Path
    samples: int
    shards: dict[str, Any]


def load_trained(path: Path, which: str = "last") -> Trained:
    """Rebuild the network of a checkpoint, on the CPU, in evaluation mode.

    Averaged weights are taken where the run kept them.

    Raises:
        EngineError: when there is none or it is damaged.
    """
    source = find_checkpoint(path, which)
    state = load_checkpoint(source)
    config, classes = state["config"], tuple(state["classes"])
    sampling = SamplingConfig(**config["sampling"])
    model = dsanet.build_model(
        config["model"], num_classes=len(classes), segments=sampling.segments, **config["network"]
    )
    model.load_state_dict(state["average"] or state["model"])
    model.eval()
    size = config["augment"]["size"]
    name, samples, shards = config["model"], state["samples"], state["shards"]
    return Trained(model, name, sampling, classes, size, source, samples, shards)


def _check_classes(trained: Trained, split: Split) -> None:
    if tuple(split.classes) != trained.classes:
        raise UsageError(
            f"{trained.source} knows {len(trained.classes)} classes ({trained.classes[0]} ...), "
            f"split {split.name} of {split.root} has {len(split.classes)} "
            f"({split.classes[0]} ...): evaluate on shards with the classes it was trained on"
        )


def _check_clips(trained: Trained, config: EvalConfig) -> None:
    segments = getattr(trained.model, "segments", None)
    if segments and config.clips % segments:
        raise UsageError(
            f"{trained.name} mixes {segments} snippets of a video, which --clips "
            f"{config.clips} does not fill: take a multiple of {segments}"
        )


def crop_size(trained: Trained, config: EvalConfig) -> int:
    """Side of the test crops: 256 where training had 224, as in the paper."""
    return config.size or (256 if trained.size == 224 else trained.size)


def evaluate(
    config: EvalConfig, trained: Trained, split: Split, world: World, console: Console
) -> ScoreTable:
    """Score every video of the split over clips x crops views; the same table on every process."""
    _check_classes(trained, split)
    _check_clips(trained, config)
    precision = execution.pick_precision(config.precision, world.device)
    model = trained.model.to(world.device)
    network = execution.compiled(model, config.compile, world.device, console.say)
    segments = getattr(model, "segments", None)
    scorer = Scorer(network, segments, precision, world.device, config.average)
    loader = EvalLoader(
        split,
        trained.sampling,
        config.loader,
        batch_size=config.batch,
        clips=config.clips,
        crops=config.crops,
        crop_size=crop_size(trained, config),
        resize_short=crop_size(trained, config),  # crops as high as the frame
        rank=world.rank,
        world=world.size,
        device=str(world.device),
    )
    console.begin(len(split))
    try:
        return score_split(scorer, loader, world, console)
    finally:
        loader.close()


def summarise(
    config: EvalConfig, trained: Trained, split: Split, table: ScoreTable
) -> dict[str, Any]:
    """metrics.json: scores beside the protocol they were taken with."""
    missing = sorted(set(range(len(split))) - set(table.ids.tolist()))
    return {
        **scores_of(table.scores, table.relevant(split)),
        "views": config.clips * config.crops,
        "missing": [split.key(index) for index in missing],
        "protocol": {
            "clips": config.clips,
            "crops": config.crops,
            "size": crop_size(trained, config),
            "average": config.average,
            "segments": getattr(trained.model, "segments", None),
            "sampling": plain(trained.sampling),
            "split": split.name,
            "videos_in_split": len(split),
        },
        "model": trained.name,
        "checkpoint": str(trained.source),
        "trained_videos": trained.samples,
        "versions": versions(),
    }


def write_scores(out: Path, table: ScoreTable, summary: dict[str, Any]) -> None:
    """Write scores.npz (ids, labels, scores) and metrics.json into `out`.

    Raises:
        EngineError: when the folder can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / "scores.npz", ids=table.ids, labels=table.labels, scores=table.scores)
        write_atomic(out / "metrics.json", (json.dumps(summary, indent=1) + "\n").encode())
    except OSError as error:
        raise EngineError(f"cannot write the scores to {out}: {error.strerror}") from error


def run_evaluation(config: EvalConfig, world: World, console: Console) -> dict[str, Any]:
    """The whole way from checkpoint to metrics.json; the summary.

    Raises:
        EngineError, ModelError, ShardError, LoaderError: for what the user can mend.
    """
    trained = load_trained(Path(config.checkpoint), config.which)
    split = open_data(config.data, config.split, config.loader)
    console.say(
        f"{trained.name} of {trained.source}, {len(split)} videos of {split.name}, "
        f"{config.clips} clips x {config.crops} crops of {crop_size(trained, config)}"
    )
    table = evaluate(config, trained, split, world, console)
    summary = summarise(config, trained, split, table)
    if world.main:
        write_scores(out_folder(config), table, summary)
    # A launcher ends all processes once one of them has left with a code that is not zero.
    world.barrier()
    return summary


def out_folder(config: EvalConfig) -> Path:
    """Where the scores go."""
    if config.out:
        return Path(config.out)
    run = Path(config.checkpoint)
    name = f"eval-{config.split}-{config.clips}x{config.crops}"
    if not run.is_file():
        return run / (name if config.which == "last" else f"{name}-{config.which}")
    return (run.parent.parent if run.parent.name == "checkpoints" else run.parent) / name
