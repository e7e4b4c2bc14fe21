"""What scores say about pairs of classes and about single videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsanet.engine.evaluation.per_class import ClassRow, confusion
from dsanet.engine.evaluation.score_file import ScoreFile


@dataclass(frozen=True)
class VideoScore:
    """The probability that a network gives to the class of a video.

    Attributes:
        video: id in the evaluated split.
        label, predicted: class numbers.
        probability: of `label`.
        row: of the video in the score file.
    """

    video: int
    label: int
    predicted: int
    probability: float
    row: int


def confused_pairs(scores: ScoreFile, count: int) -> list[tuple[str, str, int]]:
    """The most frequent mistakes as (class, predicted class, videos)."""
    matrix = confusion(scores.scores, scores.relevant)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    names = scores.classes
    return [(names[a], names[b], int(matrix[a, b])) for a, b in pairs if matrix[a, b]]


def extreme_videos(scores: ScoreFile, count: int) -> tuple[list[VideoScore], list[VideoScore]]:
    """The `count` videos whose class is least probable, and as many of the most probable others.

    Each list starts with its most extreme video.
    """
    probabilities = scores.probabilities
    videos = [
        VideoScore(
            video=int(scores.ids[row]),
            label=int(scores.labels[row]),
            predicted=int(scores.scores[row].argmax()),
            probability=float(probabilities[row, scores.labels[row]]),
            row=row,
        )
        for row in np.flatnonzero(scores.labels >= 0).tolist()
    ]
    videos.sort(key=lambda video: video.probability)
    return videos[:count], videos[max(count, len(videos) - count) :][::-1]


def class_changes(
    before: Sequence[ClassRow], after: Sequence[ClassRow]
) -> list[tuple[str, float, float]]:
    """Accuracy of each class in two evaluations as (name, before, after), largest gain first."""
    old = {row.name: row.top1 for row in before}
    rows = [(row.name, old[row.name], row.top1) for row in after if row.name in old]
    return sorted(rows, key=lambda row: row[1] - row[2])
