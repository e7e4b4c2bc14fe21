"""Bootstrap of mean average precision over the videos of a split."""

from __future__ import annotations

import numpy as np

DRAWS = 1000
CHUNK = 50  # resamples at once: bounds the memory to about 50 x videos numbers


def bootstrap_map(
    scores: np.ndarray, relevant: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """mAP of `draws` resamples of the videos with replacement (draws,).

    The same seed draws the same videos, so that two networks are compared pair by pair. A video
    drawn n times counts as n equal videos; a class that a resample lacks is not counted in it.

    scores, relevant: (N, classes); videos without a label are not drawn.
    """
    labelled = relevant.any(1)
    scores, relevant = scores[labelled], relevant[labelled]
    rng, videos = np.random.default_rng(seed), len(scores)
    present = np.flatnonzero(relevant.any(0))
    orders = [np.lexsort((relevant[:, c], -scores[:, c])) for c in present]  # as average_precision
    result = []
    for first in range(0, draws, CHUNK):
        count = min(CHUNK, draws - first)
        weights = rng.multinomial(videos, np.full(videos, 1 / videos), count)
        precisions = [
            _weighted_precision(weights[:, order], relevant[order, c])
            for order, c in zip(orders, present, strict=True)
        ]
        result.append(np.nanmean(precisions, axis=0))
    return np.concatenate(result)


def _weighted_precision(weights: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Interpolated average precision (draws,) of a ranking in which videos count several times.

    weights: (draws, N) in the order of the ranking; relevant: (N,) bool. NaN where no relevant
    video is drawn.
    """
    hits = (weights * relevant).cumsum(1)
    precision = hits / np.maximum(weights.cumsum(1), 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    positives = hits[:, -1]
    area = (envelope * weights * relevant).sum(1)
    return np.where(positives > 0, area / np.maximum(positives, 1), np.nan)
