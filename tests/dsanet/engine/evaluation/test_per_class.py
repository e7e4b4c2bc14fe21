"""Accuracy by class and confusion against plain loops."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from dsanet.engine.evaluation.accuracy import one_hot, softmax
from dsanet.engine.evaluation.per_class import (
    class_ranks,
    class_table,
    confusion,
    confusion_csv,
    table_csv,
)

NAMES = ("run", "walk, slowly", "sit", "日本", "lie", "jump", "never")


@pytest.fixture
def scores() -> np.ndarray:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 80)
    return (rng.normal(size=(80, 7)) + 1.5 * one_hot(labels, 7)).astype(np.float32)


@pytest.fixture
def relevant() -> np.ndarray:
    return one_hot(np.random.default_rng(0).integers(0, 6, 80), 7)


def test_ranks_count_ties_against_a_class() -> None:
    scores = np.array([[3.0, 1.0, 3.0, 0.0]])
    assert class_ranks(scores).tolist() == [[2, 3, 2, 4]]


def test_confusion_against_a_loop(scores: np.ndarray, relevant: np.ndarray) -> None:
    expected = [[0] * 7 for _ in range(7)]
    for row, labels in zip(scores.tolist(), relevant.tolist(), strict=True):
        expected[labels.index(True)][row.index(max(row))] += 1
    assert confusion(scores, relevant).tolist() == expected


def test_a_video_of_several_labels_is_counted_once() -> None:
    scores = np.array([[0.0, 2.0, 1.0], [2.0, 0.0, 1.0], [0.0, 0.0, 1.0], [np.nan, 0, 0]])
    relevant = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    assert confusion(scores, relevant).tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_the_table_against_a_loop(scores: np.ndarray, relevant: np.ndarray) -> None:
    table = class_table(scores, softmax(scores), relevant, NAMES)
    assert [row.name for row in table] == list(NAMES[:6])  # `never` has no video
    for row in table:
        videos = [s for s, r in zip(scores.tolist(), relevant, strict=True) if r[row.label]]
        order = [sorted(range(7), key=lambda c: -s[c]) for s in videos]
        assert row.videos == len(videos)
        assert row.top1 == pytest.approx(sum(o[0] == row.label for o in order) / len(videos))
        assert row.top5 == pytest.approx(sum(row.label in o[:5] for o in order) / len(videos))
        wrong = [o[0] for o in order if o[0] != row.label]
        assert row.taken_times == max(wrong.count(c) for c in range(7))
        assert wrong.count(NAMES.index(row.taken_for)) == row.taken_times


def test_the_files_are_read_back_by_a_csv_reader(scores: np.ndarray, relevant: np.ndarray) -> None:
    table = class_table(scores, softmax(scores), relevant, NAMES)
    rows = list(csv.DictReader(io.StringIO(table_csv(table).decode())))
    assert [row["name"] for row in rows] == list(NAMES[:6])
    assert [float(row["top1"]) for row in rows] == pytest.approx([r.top1 for r in table], abs=1e-6)
    matrix = confusion(scores, relevant)
    header, *lines = csv.reader(io.StringIO(confusion_csv(matrix, NAMES).decode()))
    assert header == ["label", *NAMES]
    assert [line[0] for line in lines] == list(NAMES)
    assert [[int(count) for count in line[1:]] for line in lines] == matrix.tolist()
