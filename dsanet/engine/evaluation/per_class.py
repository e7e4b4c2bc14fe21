"""Accuracy of each class, and which classes are confused, as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dsanet.engine.evaluation.accuracy import average_precision


class ClassRow(NamedTuple):
    """How the videos of one class are predicted; a row of classes.csv.

    label: number of the class; top1, top5: shares of its videos that have it first, or among the
    first five; taken_for: the class that most of the others are taken for, and how many of them.
    """

    label: int
    name: str
    videos: int
    top1: float
    top5: float
    average_precision: float
    taken_for: str
    taken_times: int


def class_ranks(scores: np.ndarray) -> np.ndarray:
    """Place (N, classes) of each class among the scores of a video: 1 is the highest.

    Ties count against a class, as in `top_k`: equal scores all have the last of their places.
    """
    ranks = np.zeros(scores.shape, np.int64)
    for rank, row in zip(ranks, -scores, strict=True):
        rank[:] = np.searchsorted(np.sort(row), row, "right")
    return ranks


def confusion(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Videos (classes, classes) by label and by predicted class.

    scores, relevant: (N, classes). A video with several labels is counted once: under the
    predicted class if that is one of them, else under its first label.
    """
    classes = scores.shape[1]
    labelled = relevant.any(1) & ~np.isnan(scores).any(1)
    scores, relevant = scores[labelled], relevant[labelled]
    predicted = scores.argmax(1)
    right = relevant[np.arange(len(predicted)), predicted]
    labels = np.where(right, predicted, relevant.argmax(1))
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_table(
    scores: np.ndarray, probabilities: np.ndarray, relevant: np.ndarray, names: Sequence[str]
) -> list[ClassRow]:
    """A row for each class that has a video.

    scores, probabilities, relevant: (N, classes); average precision ranks by probability.
    """
    matrix, ranks = confusion(scores, relevant), class_ranks(scores)
    rows = []
    for c in np.flatnonzero(relevant.any(0)).tolist():
        of_class = ranks[relevant[:, c], c]
        wrong = matrix[c].copy()
        wrong[c] = 0
        other = int(wrong.argmax())
        row = ClassRow(
            label=c,
            name=names[c],
            videos=len(of_class),
            top1=float((of_class <= 1).mean()),
            top5=float((of_class <= 5).mean()),
            average_precision=average_precision(probabilities[:, c], relevant[:, c]),
            taken_for=names[other] if wrong[other] else "",
            taken_times=int(wrong[other]),
        )
        rows.append(row)
    return rows


def table_csv(rows: Sequence[ClassRow]) -> bytes:
    """The rows of `class_table` as a CSV file with a header."""
    rounded = ([round(v, 6) if isinstance(v, float) else v for v in row] for row in rows)
    return _csv([ClassRow._fields, *rounded])


def confusion_csv(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """The matrix of `confusion` as a CSV file: a row for each label, a column for each class."""
    rows = ((name, *counts) for name, counts in zip(names, matrix.tolist(), strict=True))
    return _csv([("label", *names), *rows])


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
