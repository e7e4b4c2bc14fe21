"""Metrics against their definitions, written out slowly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dsanet.engine.evaluation.accuracy import (
    average_precision,
    compute_metrics,
    mean_average_precision,
    one_hot,
    softmax,
    top_k,
)


def slow_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    hits = [label in sorted(range(len(row)), key=lambda c: -row[c])[:k]
            for row, label in zip(scores, labels, strict=True)]  # fmt: skip
    return sum(hits) / len(hits)


def activitynet_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Interpolated AP written out as in the benchmark's definition: area under the envelope.

    A video comes before another by its score, and a negative before a positive with the same one.
    """
    ranked = [
        relevant[i] for i in sorted(range(len(scores)), key=lambda i: (-scores[i], relevant[i]))
    ]
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


def test_constant_or_nan_scores_count_as_wrong() -> None:
    relevant = one_hot(np.array([0, 1, 2]), 7)
    assert top_k(np.zeros((3, 7)), relevant, 5) == 0
    assert top_k(np.full((3, 7), np.nan), relevant, 5) == 0


def test_any_of_several_labels_is_a_hit() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    relevant = np.array([[True, False, True], [True, True, False]])
    assert top_k(scores, relevant, 1) == 0.5
    assert top_k(scores, relevant, 2) == 1.0


def test_average_precision(table: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = table
    for c in range(7):
        expected = activitynet_precision(scores[:, c], labels == c)
        assert average_precision(scores[:, c], labels == c) == pytest.approx(expected)


def test_map_with_several_labels_per_video_and_an_absent_class() -> None:
    scores = np.array([[3.0, 1.0, 0.0], [2.0, 3.0, 0.0], [1.0, 2.0, 0.0]])
    relevant = np.array([[True, False, False], [True, True, False], [False, True, False]])
    assert mean_average_precision(scores, relevant) == pytest.approx(1.0)


def test_unlabelled_videos_are_not_counted() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    half = compute_metrics(scores, one_hot(np.array([0, -1]), 2))
    assert half == {"top1": 1.0, "top5": 1.0, "map": 1.0, "videos": 2, "labelled": 1}
    none = compute_metrics(scores, one_hot(np.array([-1, -1]), 2))
    assert none == {"top1": None, "top5": None, "map": None, "videos": 2, "labelled": 0}


@pytest.mark.parametrize("seed", range(5))
def test_negatives_come_first_among_equal_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(0, 4, 40).astype(np.float32), rng.random(40) < 0.3
    expected = activitynet_precision(scores, relevant)
    for order in (np.arange(40), rng.permutation(40), np.argsort(relevant), np.argsort(~relevant)):
        assert average_precision(scores[order], relevant[order]) == pytest.approx(expected)


@pytest.mark.parametrize("score", [0.0, np.nan])
def test_constant_scores_have_the_precision_of_chance(score: float) -> None:
    """3 of 10 videos show the class: 0.3, whether they are stored first or last."""
    relevant = np.arange(10) < 3
    for stored in (relevant, relevant[::-1]):
        assert average_precision(np.full(10, score), stored) == pytest.approx(0.3)


def test_an_offset_per_video_changes_no_score() -> None:
    """A network that is right on every video, as in the demo: mAP 1 with any offsets."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 200)
    relevant = one_hot(labels, 7)
    logits = rng.normal(size=(200, 7)) + 6 * relevant
    offsets = rng.normal(0, 3, (200, 1))
    assert compute_metrics(logits + offsets, relevant) == pytest.approx(
        compute_metrics(logits, relevant)
    )
    assert compute_metrics(logits, relevant)["map"] > 0.99


def test_map_ranks_by_probability(table: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = table
    shares = []
    for row in logits:
        powers = [math.exp(x) for x in row]
        shares.append([p / sum(powers) for p in powers])
    probabilities = np.array(shares)
    np.testing.assert_allclose(softmax(logits), probabilities, rtol=1e-12)
    areas = [activitynet_precision(probabilities[:, c], labels == c) for c in range(7)]
    expected = pytest.approx(sum(areas) / 7)
    relevant = one_hot(labels, 7)
    assert compute_metrics(logits, relevant)["map"] == expected
    assert compute_metrics(probabilities, relevant, "softmax")["map"] == expected


def test_averaged_probabilities_are_ranked_as_they_are() -> None:
    """A second softmax would put the second video before the first one in class 0."""
    shares = np.array([[0.21, 0.01, 0.78], [0.17, 0.56, 0.27]])
    relevant = one_hot(np.array([0, 1]), 3)
    assert compute_metrics(shares, relevant, "softmax")["map"] == 1.0
    assert compute_metrics(shares, relevant, "logits")["map"] == 0.75
