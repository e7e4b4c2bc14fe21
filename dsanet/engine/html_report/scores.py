"""What scores say about classes and videos: confusion, accuracy of each class, extreme videos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsanet.engine.evaluation.accuracy import softmax
from dsanet.engine.html_report.run import Evaluation


@dataclass(frozen=True)
class ClassScore:
    """Top-1 accuracy of one class: correct of videos."""

    name: str
    correct: int
    videos: int

    @property
    def accuracy(self) -> float:
        """Share of the class's videos that are classified correctly."""
        return self.correct / self.videos


@dataclass(frozen=True)
class VideoScore:
    """The probability that a network gives to the class of a video.

    Attributes:
        video: id in the evaluated split.
        label, predicted: class numbers.
        probability: of `label`.
    """

    video: int
    label: int
    predicted: int
    probability: float


def probabilities(evaluation: Evaluation) -> np.ndarray:
    """float64 (N, classes); averages of logits are turned into probabilities."""
    if evaluation.metrics["protocol"].get("average") == "softmax":
        return np.asarray(evaluation.scores, np.float64)
    return softmax(evaluation.scores)


def confusion(evaluation: Evaluation) -> np.ndarray:
    """int64 (classes, classes): videos of each class (rows) by the predicted class (columns)."""
    classes = evaluation.scores.shape[1]
    labelled = evaluation.labels >= 0
    predicted = evaluation.scores[labelled].argmax(1)
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (evaluation.labels[labelled], predicted), 1)
    return matrix


def class_scores(evaluation: Evaluation, classes: list[str]) -> list[ClassScore]:
    """Accuracy of every class that has videos, in the order of the labels."""
    matrix = confusion(evaluation)
    return [
        ClassScore(name, int(matrix[c, c]), int(matrix[c].sum()))
        for c, name in enumerate(classes)
        if matrix[c].sum()
    ]


def confused_pairs(
    evaluation: Evaluation, classes: list[str], count: int
) -> list[tuple[str, str, int]]:
    """The most frequent mistakes as (class, predicted class, videos)."""
    matrix = confusion(evaluation)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [(classes[a], classes[b], int(matrix[a, b])) for a, b in pairs if matrix[a, b]]


def extreme_videos(evaluation: Evaluation, count: int) -> tuple[list[VideoScore], list[VideoScore]]:
    """The `count` videos whose class is least probable, and as many of the most probable others.

    Each list starts with its most extreme video.
    """
    rows = np.flatnonzero(evaluation.labels >= 0)
    labels = evaluation.labels[rows]
    own = probabilities(evaluation)[rows, labels]
    predicted = evaluation.scores[rows].argmax(1)
    columns = (evaluation.ids[rows], labels, predicted, own)
    videos = [
        VideoScore(int(video), int(label), int(guess), float(probability))
        for video, label, guess, probability in zip(*columns, strict=True)
    ]
    videos.sort(key=lambda video: video.probability)
    return videos[:count], videos[max(count, len(videos) - count) :][::-1]


def class_changes(
    before: list[ClassScore], after: list[ClassScore]
) -> list[tuple[str, float, float]]:
    """Accuracy of each class in two evaluations as (name, before, after), largest gain first."""
    old = {score.name: score.accuracy for score in before}
    rows = [(s.name, old[s.name], s.accuracy) for s in after if s.name in old]
    return sorted(rows, key=lambda row: row[1] - row[2])
