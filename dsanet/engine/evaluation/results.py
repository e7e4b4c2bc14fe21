"""The metrics of a score file, and the files that an evaluation leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.engine.errors import EngineError
from dsanet.engine.evaluation.accuracy import compute_metrics
from dsanet.engine.evaluation.intervals import wilson
from dsanet.engine.evaluation.per_class import class_table, confusion, confusion_csv, table_csv
from dsanet.engine.evaluation.score_file import NAME, ScoreFile
from shards.format.files import write_atomic


def score_metrics(scores: ScoreFile) -> dict[str, Any]:
    """The metrics of a score file: accuracies of videos with their intervals, and of inputs.

    top1, top5, map, videos, labelled: see `compute_metrics`. top1_interval, top5_interval: Wilson's
    95 % intervals. clip_top1, clip_top5: the mean over videos of the share of their inputs that are
    right alone, None where there are no labels or inputs. mean_class_top1: the mean over classes of
    the accuracy on the videos of a class.
    """
    relevant = scores.relevant
    metrics: dict[str, Any] = compute_metrics(scores.scores, relevant, scores.average)
    labelled = relevant.any(1)
    ranks, count = scores.ranks[labelled], int(labelled.sum())
    for k in (1, 5):
        share = metrics[f"top{k}"]
        known = share is not None
        metrics[f"top{k}_interval"] = wilson(round(share * count), count) if known else None
        hits = (ranks >= 1) & (ranks <= k)
        metrics[f"clip_top{k}"] = float(hits.mean()) if hits.size else None
    rows = class_table(scores.scores, scores.probabilities, relevant, scores.classes)
    means = [row.top1 for row in rows]
    metrics["mean_class_top1"] = float(np.mean(means)) if means else None
    return metrics


def write_results(out: Path, scores: ScoreFile, metrics: dict[str, Any]) -> None:
    """Write scores.npz, classes.csv and confusion.csv, and then metrics.json, into `out`.

    Raises:
        EngineError: when the folder can't be written.
    """
    relevant = scores.relevant
    files = {NAME: scores.to_bytes()}
    if relevant.any():
        rows = class_table(scores.scores, scores.probabilities, relevant, scores.classes)
        files["classes.csv"] = table_csv(rows)
        files["confusion.csv"] = confusion_csv(confusion(scores.scores, relevant), scores.classes)
    files["metrics.json"] = (json.dumps(metrics, indent=1) + "\n").encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
        # An evaluation is complete once this file is there; an older one is of other scores.
        (out / "metrics.json").unlink(missing_ok=True)
        for name, content in files.items():
            write_atomic(out / name, content)
    except OSError as error:
        raise EngineError(
            f"{out}: cannot write the scores: {error.strerror}; free some space, or give another "
            "--out"
        ) from error
