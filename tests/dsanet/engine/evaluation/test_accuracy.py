"""Scores against slow definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dsanet.engine.evaluation.accuracy import (
    average_precision,
    mean_average_precision,
    one_hot,
    scores_of,
    top_k,
)


def slow_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    hits = [label in sorted(range(len(row)), key=lambda c: -row[c])[:k]
            for row, label in zip(scores, labels, strict=True)]  # fmt: skip
    return sum(hits) / len(hits)


def activitynet_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Interpolated AP written out as in the benchmark's definition: area under the envelope."""
    ranked = [relevant[i] for i in sorted(range(len(scores)), key=lambda i: -scores[i])]
    points = [(0.0, 0.0)]
    for n in range(1, len(ranked) + 1):
        hits = sum(ranked[:n])
        points.append((hits / sum(relevant), hits / n))
    area = 0.0
    for (before, _), (after, _) in itertools.pairwise(points):
        area += (after - before) * max(p for r, p in points if r >= after)
    return area


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, 7)), rng.integers(0, 7, 50)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k(k: int, table: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = table
    assert top_k(scores, one_hot(labels, 7), k) == pytest.approx(slow_top_k(scores, labels, k))


def test_constant_or_broken_scores_get_no_credit() -> None:
    relevant = one_hot(np.array([0, 1, 2]), 7)
    assert top_k(np.zeros((3, 7)), relevant, 5) == 0
    assert top_k(np.full((3, 7), np.nan), relevant, 5) == 0


def test_any_of_several_labels_counts() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    relevant = np.array([[True, False, True], [True, True, False]])
    assert top_k(scores, relevant, 1) == 0.5
    assert top_k(scores, relevant, 2) == 1.0


def test_average_precision(table: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = table
    for c in range(7):
        expected = activitynet_precision(scores[:, c], labels == c)
        assert average_precision(scores[:, c], labels == c) == pytest.approx(expected)


def test_several_labels_a_video_and_absent_classes() -> None:
    scores = np.array([[3.0, 1.0, 0.0], [2.0, 3.0, 0.0], [1.0, 2.0, 0.0]])
    relevant = np.array([[True, False, False], [True, True, False], [False, True, False]])
    assert mean_average_precision(scores, relevant) == pytest.approx(1.0)


def test_unlabelled_videos_are_not_scored() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert scores_of(scores, one_hot(np.array([0, -1]), 2))["videos"] == 1
