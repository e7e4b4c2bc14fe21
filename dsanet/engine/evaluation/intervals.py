"""How sure an accuracy is: intervals, and tests of two accuracies on the same videos."""

from __future__ import annotations

import math

import numpy as np

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution
RESAMPLES = 10_000


def wilson(hits: int, videos: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `hits` in `videos` (Wilson 1927), as shares.

    It holds for few videos and for shares near 0 and 1, where the interval of the normal
    approximation leaves [0, 1]. Without videos it is (0, 1).
    """
    if not videos:
        return 0.0, 1.0
    share, square = hits / videos, Z95**2 / videos
    centre = share + square / 2
    half = Z95 * math.sqrt(share * (1 - share) / videos + square / (4 * videos))
    low, high = (centre - half) / (1 + square), (centre + half) / (1 + square)
    return (0.0 if not hits else low), (1.0 if hits == videos else high)


def mcnemar(wins: int, losses: int) -> float:
    """The p-value of McNemar's exact test, two-sided.

    wins, losses: videos that only the second, or only the first of two networks has right. Where
    both are equally good, each of these videos is a fair coin's throw.
    """
    throws = wins + losses
    term = total = 1  # binomial coefficients (throws, 0), (throws, 1), ... as exact integers
    for k in range(min(wins, losses)):
        term = term * (throws - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**throws)


def paired_interval(wins: int, losses: int, videos: int, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the difference (wins - losses) / videos of two accuracies.

    A percentile bootstrap over the videos (Efron 1979) with 10,000 resamples. A video counts as 1,
    -1 or 0, so that a resample is a draw of the three counts.
    """
    shares = np.array([wins, losses, videos - wins - losses]) / videos
    draws = np.random.default_rng(seed).multinomial(videos, shares, RESAMPLES)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / videos, [2.5, 97.5])
    return float(low), float(high)
