"""Evaluation of a trained network: clips x crops views of every video, one table of scores."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dsanet.engine import execution
from dsanet.engine.checkpoint import fingerprint, write_atomic
from dsanet.engine.command_line import build_parser, parse_dataclass
from dsanet.engine.config import check_not_empty, plain
from dsanet.engine.environment import versions
from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.evaluation.accuracy import Average, scores_of
from dsanet.engine.evaluation.score_log import Journal
from dsanet.engine.evaluation.scoring import Scorer, ScoreTable, merged, score_batches
from dsanet.engine.evaluation.trained_network import Trained, load_trained
from dsanet.engine.folder_lock import locked
from dsanet.engine.launch.distributed import World, count_processes
from dsanet.engine.launch.signals import Signals
from dsanet.engine.report.console import Console
from dsanet.errors import check_choices, require
from pipelines import EvalLoader, LoaderConfig, Rank, open_data
from shards import Split
from shards.format.index import check_idx_files


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
        rendezvous_minutes: how long a process waits at the start until all have come.
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
    rendezvous_minutes: float = 10.0
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def __post_init__(self) -> None:
        check_choices(self, "", UsageError)
        check_not_empty(self, "checkpoint")
        for name in ("clips", "batch"):
            require(
                getattr(self, name) >= 1, name, "be at least 1", getattr(self, name), UsageError
            )
        minutes, size = self.rendezvous_minutes, self.size
        require(minutes > 0, "rendezvous_minutes", "be greater than 0", minutes, UsageError)
        require(size is None or size >= 1, "size", "be at least 1, or null", size, UsageError)


def parse_eval(argv: Sequence[str] | None = None) -> EvalConfig:
    """Settings of the command line.

    Raises:
        UsageError: with one line that names the key.
    """
    parser = build_parser("eval.py", "Evaluate a run on a split.")
    config = parse_dataclass(parser, EvalConfig, sys.argv[1:] if argv is None else argv)
    check_not_empty(config, "data")
    return config


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
    config: EvalConfig,
    trained: Trained,
    split: Split,
    world: World,
    console: Console,
    journal: Journal | None = None,
) -> ScoreTable:
    """Score every video of the split over clips x crops views; the same table on every process.

    Raises:
        Interrupted: after a signal; what is in the journal need not be scored again.
    """
    _check_classes(trained, split)
    _check_clips(trained, config)
    wanted, kept = np.arange(len(split)), None
    if journal is not None:
        kept = journal.begin(_settings(config, trained, split, world), console.print)
        wanted[kept.ids] = -1
    if kept and len(kept.ids):
        console.print(f"{len(kept.ids)} of {len(split)} videos were scored before: going on")
    if (wanted < 0).all():
        return merged(world, [], kept)
    if config.loader.reader == "frames":
        wanted = wanted[wanted >= 0]
        split = split.part(wanted)
    else:  # it streams what there is, whatever is wanted
        check_idx_files(split)
    scorer = _scorer(config, trained, world, console)
    loader = _loader(config, trained, split, world)
    console.start_progress(len(split))
    rows = []
    try:
        for row in score_batches(scorer, loader, world, console, wanted):
            rows.append(row)
            if journal is not None and journal.add(row):
                break
    finally:
        loader.close()
    if journal is not None:
        journal.agree()
    return merged(world, rows, kept)


def _scorer(config: EvalConfig, trained: Trained, world: World, console: Console) -> Scorer:
    precision = execution.pick_precision(config.precision, world.device)
    model = trained.model.to(world.device)
    network = execution.compiled(model, config.compile, world.device, console.print)
    segments = getattr(model, "segments", None)
    return Scorer(network, segments, precision, world.device, config.average)


def _loader(config: EvalConfig, trained: Trained, split: Split, world: World) -> EvalLoader:
    return EvalLoader(
        split,
        trained.sampling,
        config.loader,
        batch_size=config.batch,
        clips=config.clips,
        crops=config.crops,
        crop_size=crop_size(trained, config),
        resize_short=crop_size(trained, config),  # crops as high as the frame
        rank=Rank(world.rank, world.size, str(world.device)),
    )


def _protocol(config: EvalConfig, trained: Trained, split: Split) -> dict[str, Any]:
    return {
        "clips": config.clips,
        "crops": config.crops,
        "size": crop_size(trained, config),
        "average": config.average,
        "segments": getattr(trained.model, "segments", None),
        "sampling": plain(trained.sampling),
        "split": split.name,
        "videos_in_split": len(split),
    }


def _settings(config: EvalConfig, trained: Trained, split: Split, world: World) -> dict[str, Any]:
    """Everything that scores depend on, but for what is rounding: batch and processes."""
    tars = json.dumps(split.manifest["tars"], sort_keys=True).encode()
    loader = {name: getattr(config.loader, name) for name in ("reader", "decode", "resize")}
    return {
        "checkpoint": fingerprint(trained.source),
        "protocol": _protocol(config, trained, split),
        "shards": hashlib.sha256(tars).hexdigest()[:16],
        "precision": execution.pick_precision(config.precision, world.device),
        "device": world.device.type,
        "loader": loader,
        "versions": versions(),
    }


def summarise(
    config: EvalConfig, trained: Trained, split: Split, table: ScoreTable
) -> dict[str, Any]:
    """metrics.json: scores beside the protocol they were taken with."""
    missing = sorted(set(range(len(split))) - set(table.ids.tolist()))
    return {
        **scores_of(table.scores, table.relevant(split), config.average),
        "views": config.clips * config.crops,
        "missing": [split.key(index) for index in missing],
        "protocol": _protocol(config, trained, split),
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


def run_evaluation(
    config: EvalConfig, world: World, console: Console, signals: Signals | None = None
) -> dict[str, Any]:
    """The whole way from checkpoint to metrics.json; the summary.

    Raises:
        EngineError, ModelError, ShardError, LoaderError: for what the user can mend.
        Interrupted: after a signal, with all scores so far kept.
    """
    trained = load_trained(Path(config.checkpoint), config.which)
    processes = count_processes(world.gather_text(world.describe()))
    split = open_data(config.data, config.split, config.loader)
    console.print(
        f"{trained.name} of {trained.source}, {len(split)} videos of {split.name}, "
        f"{config.clips} clips x {config.crops} crops of {crop_size(trained, config)}, "
        f"{execution.pick_precision(config.precision, world.device)} on {processes}"
    )
    out = out_folder(config)
    with locked(out, world, console.print) as lock:
        journal = Journal(out, len(trained.classes), world, signals)
        table = evaluate(config, trained, split, world, console, journal)
        summary = summarise(config, trained, split, table)
        if lock is not None:
            lock.check()
            write_scores(out, table, summary)
            journal.remove()
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
