"""Metrics of a table of scores: top-k accuracy and mean average precision."""

from __future__ import annotations

from typing import Literal

import numpy as np

Average = Literal["logits", "softmax"]


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels (N,), -1 for none, as bool (N, classes)."""
    return labels[:, None] == np.arange(classes)


def top_k(scores: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Share of videos with one of their labels among the k classes of highest score.

    scores (N, classes), relevant (N, classes) bool. Ties count against a video, so that constant
    scores give zero.
    """
    best = np.where(relevant, scores, -np.inf).max(1)
    at_least = (scores >= best[:, None]).sum(1)
    # at_least is 0 where the best score is NaN, which does not equal itself: not a hit.
    return float(((at_least >= 1) & (at_least <= k)).mean())


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Interpolated average precision of one class, as ActivityNet's toolkit computes it.

    scores (N,), relevant (N,) bool with at least one True. Among equal scores the negatives come
    first, so that ties give no credit and the order of storage does not matter.
    """
    order = np.lexsort((relevant, -scores))  # by score, then by relevance
    hits = relevant[order].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[relevant[order]].mean())


def mean_average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Mean average precision over the classes that occur in `relevant`; both (N, classes)."""
    present = np.flatnonzero(relevant.any(0))
    return float(np.mean([average_precision(scores[:, c], relevant[:, c]) for c in present]))


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 probabilities of logits, both (N, classes)."""
    exponentials = np.exp(np.float64(logits) - logits.max(1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def compute_metrics(
    scores: np.ndarray, relevant: np.ndarray, average: Average = "logits"
) -> dict[str, float | int | None]:
    """Compute top1, top5 and map over the videos that have a label, None where there are none.

    `videos` counts all videos, `labelled` those with a label.

    scores (N, classes), relevant (N, classes) bool.
    average: what `scores` are means of. mAP ranks videos against each other, so it is computed on
    probabilities: logits have an offset of their own for each video.
    """
    labelled = np.asarray(relevant.any(1))
    scores, relevant = scores[labelled], relevant[labelled]
    counts = {"videos": len(labelled), "labelled": len(scores)}
    if not len(scores):
        return {"top1": None, "top5": None, "map": None, **counts}
    probabilities = softmax(scores) if average == "logits" else scores
    return {
        "top1": top_k(scores, relevant, 1),
        "top5": top_k(scores, relevant, 5),
        "map": mean_average_precision(probabilities, relevant),
        **counts,
    }
