"""Confusion, classes and extreme videos, against plain loops over the videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsanet.engine.html_report.run import Evaluation
from dsanet.engine.html_report.scores import (
    class_changes,
    class_scores,
    confused_pairs,
    confusion,
    extreme_videos,
)

CLASSES = ["left", "right", "up"]


def evaluation(average: str = "logits") -> Evaluation:
    """Scores of 40 videos, one in eight of them without a label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)  # no video of the class up
    labels[::8] = -1
    scores = rng.normal(size=(40, 3)).astype(np.float32)
    metrics = {"protocol": {"average": average}}
    return Evaluation(Path("e"), metrics, np.arange(100, 140), labels, scores)


def test_confusion_counts_each_labelled_video_once() -> None:
    table = evaluation()
    expected = np.zeros((3, 3), int)
    for label, scores in zip(table.labels, table.scores, strict=True):
        if label >= 0:
            expected[label, scores.argmax()] += 1
    np.testing.assert_array_equal(confusion(table), expected)


def test_classes_without_videos_are_left_out() -> None:
    table = evaluation()
    rows = class_scores(table, CLASSES)
    assert [row.name for row in rows] == ["left", "right"]
    for label, row in enumerate(rows):
        own = table.labels == label
        assert row.videos == own.sum()
        assert row.correct == (table.scores[own].argmax(1) == label).sum()
        assert row.accuracy == row.correct / row.videos


def test_pairs_are_mistakes_only_and_the_most_frequent_first() -> None:
    pairs = confused_pairs(evaluation(), CLASSES, 3)
    counts = [count for _, _, count in pairs]
    assert counts == sorted(counts, reverse=True)
    assert all(name != other and count for name, other, count in pairs)
    assert confused_pairs(evaluation(), CLASSES, 100)[-1][2] > 0


@pytest.mark.parametrize("average", ["logits", "softmax"])
def test_extreme_videos_are_ordered_by_the_probability_of_their_class(average: str) -> None:
    table = evaluation(average)
    if average == "softmax":
        table.scores[:] = np.exp(table.scores) / np.exp(table.scores).sum(1, keepdims=True)
    worst, best = extreme_videos(table, 3)
    own = {}
    for video, label, row in zip(table.ids, table.labels, table.scores, strict=True):
        if label >= 0:
            weights = np.exp(row.astype(float)) if average == "logits" else row.astype(float)
            own[int(video)] = weights[label] / weights.sum()
    order = sorted(own, key=lambda video: own[video])
    assert [video.video for video in worst] == order[:3]
    assert [video.video for video in best] == order[-1:-4:-1]
    assert worst[0].probability == pytest.approx(own[order[0]])


def test_no_video_is_among_the_worst_and_the_best() -> None:
    worst, best = extreme_videos(evaluation(), 20)
    assert (len(worst), len(best)) == (20, 15)
    assert not {video.video for video in worst} & {video.video for video in best}


def test_changes_of_classes_start_with_the_largest_gain() -> None:
    table = evaluation()
    before = class_scores(table, CLASSES)
    table.scores[table.labels == 1, 1] = 9  # now all right
    rows = class_changes(before, class_scores(table, CLASSES))
    assert [row[0] for row in rows] == ["right", "left"]
    assert rows[0][2] == 1.0
