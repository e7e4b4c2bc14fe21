"""Frequent mistakes, extreme videos and changes of classes, against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dsanet.engine.evaluation.per_class import class_table
from dsanet.engine.evaluation.score_file import ScoreFile
from dsanet.engine.html_report.scores import class_changes, confused_pairs, extreme_videos

CLASSES = ("left", "right", "up")


def make_scores(average: str = "logits", videos: int = 40) -> ScoreFile:
    """Scores of videos of two of three classes, one in eight of them without a label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, videos)
    labels[::8] = -1
    scores = rng.normal(size=(videos, 3)).astype(np.float32)
    if average == "softmax":
        scores = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return ScoreFile(
        ids=np.arange(100, 100 + videos),
        labels=labels,
        scores=scores,
        ranks=np.zeros((videos, 0), np.int32),
        keys=np.array([f"v{i}".encode() for i in range(videos)]),
        missing=np.zeros(0, "S1"),
        more_labels=np.zeros((0, 2), np.int64),
        classes=CLASSES,
        protocol={"average": average, "description": "1 x 1"},
    )


def test_pairs_are_mistakes_only_and_the_most_frequent_first() -> None:
    scores = make_scores()
    expected: dict[tuple[str, str], int] = {}
    for label, row in zip(scores.labels, scores.scores, strict=True):
        if label >= 0 and row.argmax() != label:
            pair = CLASSES[label], CLASSES[row.argmax()]
            expected[pair] = expected.get(pair, 0) + 1
    pairs = confused_pairs(scores, 100)
    assert {(a, b): n for a, b, n in pairs} == expected
    counts = [n for _, _, n in pairs]
    assert counts == sorted(counts, reverse=True)
    assert confused_pairs(scores, 2) == pairs[:2]


@pytest.mark.parametrize("average", ["logits", "softmax"])
def test_extreme_videos_are_ordered_by_the_probability_of_their_class(average: str) -> None:
    scores = make_scores(average)
    own = {}
    for video, label, row in zip(scores.ids, scores.labels, scores.scores, strict=True):
        if label >= 0:
            weights = np.exp(row.astype(float)) if average == "logits" else row.astype(float)
            own[int(video)] = weights[label] / weights.sum()
    order = sorted(own, key=lambda video: own[video])
    worst, best = extreme_videos(scores, 3)
    assert [video.video for video in worst] == order[:3]
    assert [video.video for video in best] == order[-1:-4:-1]
    assert worst[0].probability == pytest.approx(own[order[0]], rel=1e-6)
    assert scores.ids[worst[0].row] == order[0]


def test_no_video_is_among_the_worst_and_the_best() -> None:
    worst, best = extreme_videos(make_scores(), 20)
    assert (len(worst), len(best)) == (20, 15)
    assert not {video.video for video in worst} & {video.video for video in best}


def test_changes_of_classes_start_with_the_largest_gain() -> None:
    old = make_scores()
    better = old.scores.copy()
    better[old.labels == 1, 1] = 9  # now all right
    new = replace(old, scores=better)
    before, after = (
        class_table(s.scores, s.probabilities, s.relevant, CLASSES) for s in (old, new)
    )
    rows = class_changes(before, after)
    assert [row[0] for row in rows] == ["right", "left"]
    assert rows[0][2] == 1.0
