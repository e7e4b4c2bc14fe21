"""Evaluation of a trained network: clips x crops views of every video, one table of scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.engine import execution
from dsanet.engine.checkpoint import fingerprint
from dsanet.engine.config import plain
from dsanet.engine.environment import versions
from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.config import EvalConfig, out_folder
from dsanet.engine.evaluation.protocol import Protocol, resolve, sampling_for
from dsanet.engine.evaluation.results import score_metrics, write_results
from dsanet.engine.evaluation.score_file import ScoreFile, score_file
from dsanet.engine.evaluation.score_log import ScoreLog
from dsanet.engine.evaluation.scoring import Scorer, ScoreTable, merge_tables, score_batches
from dsanet.engine.evaluation.trained_network import TrainedNetwork, find_trained, load_trained
from dsanet.engine.evaluation.windows import score_windows
from dsanet.engine.folder_lock import locked
from dsanet.engine.launch.distributed import World, count_processes
from dsanet.engine.launch.first_process import on_first_process
from dsanet.engine.launch.signals import Signals
from dsanet.engine.report.console import Console
from dsanet.inference import fold_batch_norms
from dsanet.recognizer import Recognizer
from pipelines import EvalLoader, Rank, open_data
from pipelines.window_loader import WindowLoader
from shards import Split
from shards.format.index import check_idx_files


def run_evaluation(
    config: EvalConfig, world: World, console: Console, signals: Signals | None = None
) -> dict[str, Any]:
    """Evaluate a checkpoint and write metrics.json and scores.npz; returns the metrics.

    Raises:
        EngineError, ModelError, ShardError, LoaderError: for what the user can fix.
        Interrupted: after a signal; the scores so far are saved.
    """

    def choose() -> str:
        return str(find_trained(Path(config.checkpoint), config.which, console.print))

    trained = load_trained(Path(on_first_process(world, choose)))
    protocol = protocol_of(config, trained)
    processes = count_processes(world.gather_text(world.describe()))
    split = open_data(config.data, config.split, config.loader)
    console.print(
        f"{trained.name} of {trained.source}, {len(split)} videos of {split.name}, "
        f"protocol {protocol.describe()}, "
        f"{execution.pick_precision(config.precision, world.device)} on {processes}"
    )
    out = out_folder(config)
    with locked(out, world, console.print) as lock:
        score_log = ScoreLog(out, len(trained.classes), protocol.inputs, world, signals)
        table = evaluate(config, trained, split, world, console, score_log)
        scores = score_file(table, split, _protocol(config, trained, split))
        metrics = summarise(trained, table, scores)
        if lock is not None:
            lock.check()
            write_results(out, scores, metrics)
            score_log.remove()
    # A launcher ends all processes once one of them has exited with a code that is not zero.
    world.barrier()
    return metrics


def evaluate(
    config: EvalConfig,
    trained: TrainedNetwork,
    split: Split,
    world: World,
    console: Console,
    score_log: ScoreLog | None = None,
) -> ScoreTable:
    """Score every video of the split over clips x crops views; the same table on every process.

    score_log: saves scores as they are made; videos that it already has are not scored again.

    Raises:
        UsageError: for another number of clips, or other classes, than the network can take.
        Interrupted: after a signal; the scores so far are in the log.
    """
    _check_split(trained, split)
    ids = np.arange(len(split))  # of the loader's videos; -1 for those already scored
    earlier = None
    if score_log is not None:
        settings = _settings(config, trained, split, world)
        earlier = score_log.open(settings, console.print, len(split))
        ids[earlier.ids] = -1
        if len(earlier.ids):
            console.print(f"continuing: {len(earlier.ids)} of {len(split)} videos are scored")
    if (ids < 0).all():
        return merge_tables(world, [], earlier)
    if config.loader.reader == "frames":
        ids = ids[ids >= 0]
        split = split.part(ids)
    else:  # this reader streams all videos, also those already scored
        check_idx_files(split)
    tables = _score(config, trained, split, ids, world, console, score_log)
    return merge_tables(world, tables, earlier)


def _score(
    config: EvalConfig,
    trained: TrainedNetwork,
    split: Split,
    ids: np.ndarray,
    world: World,
    console: Console,
    score_log: ScoreLog | None,
) -> list[ScoreTable]:
    """Scores of this process's batches, appended to the log."""
    scorer = _scorer(config, trained, world, console)
    loader = _loader(config, trained, split, world)
    if score_log is not None:
        loader.ending = lambda: score_log.signals.ending
    console.start_progress(len(split))
    tables = []
    try:
        for table in _tables(config, trained, scorer, loader, world, console, ids):
            tables.append(table)
            if score_log is not None:
                score_log.append(table)
                if score_log.stop_requested:
                    break
    finally:
        loader.close()
    if score_log is not None:
        score_log.raise_if_stopped()
    return tables


def _check_split(trained: TrainedNetwork, split: Split) -> None:
    if not len(split):
        raise UsageError(f"{split.root / split.name}: the split has no videos to evaluate")
    if tuple(split.classes) != trained.classes:
        raise UsageError(
            f"{trained.source} was trained on {len(trained.classes)} classes "
            f"({trained.classes[0]} ...), split {split.name} of {split.root} has "
            f"{len(split.classes)} ({split.classes[0]} ...); evaluate on shards with the classes "
            "it was trained on"
        )


def protocol_of(config: EvalConfig, trained: TrainedNetwork) -> Protocol:
    """The test protocol that the settings mean for a network.

    Raises:
        UsageError: for views that the network cannot take.
    """
    return resolve(
        config.protocol,
        config.wanted,
        network=trained.name,
        segments=getattr(trained.model, "segments", None),
        sampling=trained.sampling,
        train_size=trained.size,
    )


def _scorer(config: EvalConfig, trained: TrainedNetwork, world: World, console: Console) -> Scorer:
    precision = execution.pick_precision(config.precision, world.device)
    model = trained.model
    if isinstance(model, Recognizer):
        model = fold_batch_norms(model)
    model.to(world.device)
    network = execution.compiled(model, config.compile, world.device, console.print)
    protocol = protocol_of(config, trained)
    return Scorer(network, protocol.segments, precision, world.device, protocol.average)


def _tables(
    config: EvalConfig,
    trained: TrainedNetwork,
    scorer: Scorer,
    loader: EvalLoader | WindowLoader,
    world: World,
    console: Console,
    ids: np.ndarray,
) -> Iterator[ScoreTable]:
    if isinstance(loader, EvalLoader):
        return score_batches(scorer, loader, world, console, ids)
    classes = len(trained.classes)
    return score_windows(scorer, loader, world, console, ids, classes=classes, batch=config.batch)


def _loader(
    config: EvalConfig, trained: TrainedNetwork, split: Split, world: World
) -> EvalLoader | WindowLoader:
    protocol = protocol_of(config, trained)
    sampling = sampling_for(protocol, trained.sampling)
    rank = Rank(world.rank, world.size, str(world.device))
    if protocol.placement == "windows":
        return WindowLoader(
            split,
            sampling,
            config.loader,
            crops=protocol.crops,
            crop_size=protocol.size,
            resize_short=protocol.short_side,
            rank=rank,
        )
    return EvalLoader(
        split,
        sampling,
        config.loader,
        batch_size=config.batch,
        clips=None if protocol.placement == "centre" else protocol.clips,
        crops=protocol.crops,
        twice=protocol.placement == "twice",
        crop_size=protocol.size,
        resize_short=protocol.short_side,
        rank=rank,
    )


def _protocol(config: EvalConfig, trained: TrainedNetwork, split: Split) -> dict[str, Any]:
    protocol = protocol_of(config, trained)
    return {
        **protocol.record(),
        "sampling": plain(sampling_for(protocol, trained.sampling)),
        "split": split.name,
        "videos_in_split": len(split),
    }


def _settings(
    config: EvalConfig, trained: TrainedNetwork, split: Split, world: World
) -> dict[str, Any]:
    """Everything that scores depend on beyond rounding, thus not the batch and the processes."""
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


def summarise(trained: TrainedNetwork, table: ScoreTable, scores: ScoreFile) -> dict[str, Any]:
    """Content of metrics.json: the metrics, and the protocol they were measured with."""
    protocol = scores.protocol
    missing = dict(
        zip([key.decode() for key in scores.missing], table.missing.values(), strict=True)
    )
    return {
        **score_metrics(scores),
        "views": protocol["clips"] * protocol["crops"],
        "inputs": scores.ranks.shape[1],
        "missing": list(missing),
        "missing_reasons": missing,
        "protocol": protocol,
        "model": trained.name,
        "checkpoint": str(trained.source),
        "trained_videos": trained.samples,
        "versions": versions(),
    }
