"""The bootstrap of mAP against resamples that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from dsanet.engine.evaluation.accuracy import mean_average_precision
from dsanet.engine.evaluation.bootstrap import bootstrap_map


def test_a_weighted_video_counts_as_several() -> None:
    rng = np.random.default_rng(0)
    relevant = rng.random((30, 4)) < 0.3
    scores = rng.integers(0, 9, (30, 4)).astype(float)  # with ties
    counts = np.random.default_rng(3).multinomial(
        int(relevant.any(1).sum()), np.full(relevant.any(1).sum(), 1 / relevant.any(1).sum()), 8
    )
    rows = [np.repeat(np.flatnonzero(relevant.any(1)), count) for count in counts]
    expected = [mean_average_precision(scores[row], relevant[row]) for row in rows]
    assert bootstrap_map(scores, relevant, draws=8, seed=3) == pytest.approx(expected)


def test_a_class_that_a_resample_lacks_is_not_counted() -> None:
    relevant = np.array([[1, 0], [1, 0], [0, 1]], bool)
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    assert bootstrap_map(scores, relevant, draws=50).tolist() == [1.0] * 50
