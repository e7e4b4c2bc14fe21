"""Scores of a set of videos: top-k accuracy and mean average precision."""

from __future__ import annotations

import numpy as np


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """labels (N,), -1 for none -> (N, classes) bool: which classes a video shows."""
    return labels[:, None] == np.arange(classes)


def top_k(scores: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Share of videos with a class they show among their k best.

    scores (N, classes), relevant (N, classes) bool. A tie counts against the video, so constant
    scores give no credit.
    """
    best = np.where(relevant, scores, -np.inf).max(1)
    at_least = (scores >= best[:, None]).sum(1)
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


def mean_average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Mean of the average precision over the classes that occur; both (N, classes)."""
    present = np.flatnonzero(relevant.any(0))
    return float(np.mean([average_precision(scores[:, c], relevant[:, c]) for c in present]))


def scores_of(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float | int]:
    """All scores of a table (N, classes): top1, top5, map, and the number of labelled videos."""
    known = relevant.any(1)
    scores, relevant = scores[known], relevant[known]
    if not len(scores):
        return {"top1": 0.0, "top5": 0.0, "map": 0.0, "videos": 0}
    return {
        "top1": top_k(scores, relevant, 1),
        "top5": top_k(scores, relevant, 5),
        "map": mean_average_precision(scores, relevant),
        "videos": len(scores),
    }
