"""Scores of a set of videos: top-k accuracy and mean average precision."""

from __future__ import annotations

import numpy as np


def top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of videos whose label is among the k best classes.

    scores (N, classes), labels (N,). A tie counts against the video: classes of equal score come
    before the label, so constant scores give no credit.
    """
    of_label = scores[np.arange(len(labels)), labels]
    at_least = (scores >= of_label[:, None]).sum(1)
    # A score that is not a number compares false with itself, and is never right.
    return float(((at_least >= 1) & (at_least <= k)).mean())


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Area under the precision envelope over recall, as ActivityNet's toolkit has it.

    scores (N,), relevant (N,) bool with at least one True.
    """
    order = np.argsort(-scores, kind="stable")
    hits = relevant[order].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[relevant[order]].mean())


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the average precision over the classes that occur.

    scores (N, classes); labels (N,) class indices, or (N, classes) bool for several a video.
    """
    relevant = labels if labels.ndim == 2 else labels[:, None] == np.arange(scores.shape[1])
    present = np.flatnonzero(relevant.any(0))
    return float(np.mean([average_precision(scores[:, c], relevant[:, c]) for c in present]))


def scores_of(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | int]:
    """All scores of a table: top1, top5, map, and the number of videos."""
    known = labels >= 0
    scores, labels = scores[known], labels[known]
    if not len(labels):
        return {"top1": 0.0, "top5": 0.0, "map": 0.0, "videos": 0}
    return {
        "top1": top_k(scores, labels, 1),
        "top5": top_k(scores, labels, 5),
        "map": mean_average_precision(scores, labels),
        "videos": len(labels),
    }
