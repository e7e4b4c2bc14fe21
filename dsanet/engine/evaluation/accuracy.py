"""Scores of a set of videos: top-k accuracy and mean average precision."""

from __future__ import annotations

from typing import Literal

import numpy as np

Average = Literal["logits", "softmax"]


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

    scores (N,), relevant (N,) bool with at least one True. Among equal scores the negatives come
    first, so that ties give no credit and the order of storage does not matter.
    """
    order = np.lexsort((relevant, -scores))  # by score, then by relevance
    hits = relevant[order].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[relevant[order]].mean())


def mean_average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Mean of the average precision over the classes that occur; both (N, classes)."""
    present = np.flatnonzero(relevant.any(0))
    return float(np.mean([average_precision(scores[:, c], relevant[:, c]) for c in present]))


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 probabilities of logits, both (N, classes)."""
    shares = np.exp(np.float64(logits) - logits.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True))


def scores_of(
    scores: np.ndarray, relevant: np.ndarray, average: Average = "logits"
) -> dict[str, float | int]:
    """All scores of a table (N, classes): top1, top5, map, and the number of labelled videos.

    average: what `scores` are means of. mAP ranks videos against each other, so it is computed on
    probabilities: logits have an offset of their own for each video.
    """
    known = relevant.any(1)
    scores, relevant = scores[known], relevant[known]
    if not len(scores):
        return {"top1": 0.0, "top5": 0.0, "map": 0.0, "videos": 0}
    probabilities = softmax(scores) if average == "logits" else scores
    return {
        "top1": top_k(scores, relevant, 1),
        "top5": top_k(scores, relevant, 5),
        "map": mean_average_precision(probabilities, relevant),
        "videos": len(scores),
    }
