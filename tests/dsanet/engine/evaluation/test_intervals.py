"""Intervals and tests against closed forms, plain sums and tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dsanet.engine.evaluation.intervals import mcnemar, paired_interval, wilson


@pytest.mark.parametrize(
    ("hits", "videos", "expected"),
    # Newcombe 1998, Statistics in Medicine 17, Table I: the score interval without correction.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)),
     (1, 29, (0.0061, 0.1718)), (29, 29, (0.8830, 1.0))],
)  # fmt: skip
def test_wilson_against_a_published_table(
    hits: int, videos: int, expected: tuple[float, float]
) -> None:
    assert wilson(hits, videos) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("hits", "videos"), [(1, 8), (7, 8), (300, 400), (15_445, 19_796)])
def test_the_ends_of_wilsons_interval_are_just_not_rejected(hits: int, videos: int) -> None:
    """At either end the observed share is 1.96 standard deviations away."""
    for end in wilson(hits, videos):
        deviation = math.sqrt(end * (1 - end) / videos)
        assert abs(hits / videos - end) == pytest.approx(1.959963984540054 * deviation)


def test_without_videos_nothing_is_known() -> None:
    assert wilson(0, 0) == (0, 1)


def slow_mcnemar(wins: int, losses: int) -> float:
    """The probability of a split at least as uneven, over all sequences of fair throws."""
    throws = wins + losses
    uneven = sum(
        abs(2 * sum(flips) - throws) >= abs(wins - losses)
        for flips in itertools.product((0, 1), repeat=throws)
    )
    return uneven / 2**throws


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (3, 3), (0, 6), (2, 9), (10, 4)])
def test_mcnemar_against_all_sequences(wins: int, losses: int) -> None:
    assert mcnemar(wins, losses) == pytest.approx(slow_mcnemar(wins, losses))
    assert mcnemar(wins, losses) == mcnemar(losses, wins)


def test_mcnemar_with_many_videos_nears_the_normal_distribution() -> None:
    z = (5200 - 4800 - 1) / math.sqrt(10_000)
    assert mcnemar(5200, 4800) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)


def slow_bootstrap(wins: int, losses: int, videos: int) -> tuple[float, float]:
    values = np.array([1] * wins + [-1] * losses + [0] * (videos - wins - losses))
    rng = np.random.default_rng(1)
    means = [rng.choice(values, videos).mean() for _ in range(4000)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@pytest.mark.parametrize(("wins", "losses"), [(20, 12), (0, 5), (60, 10)])
def test_the_paired_interval_against_resampled_videos(wins: int, losses: int) -> None:
    low, high = paired_interval(wins, losses, 200)
    assert (low, high) == pytest.approx(slow_bootstrap(wins, losses, 200), abs=0.011)
    assert low <= (wins - losses) / 200 <= high
    assert paired_interval(wins, losses, 200) == (low, high)


def test_equal_predictions_do_not_differ() -> None:
    assert paired_interval(0, 0, 50) == (0, 0)
    assert mcnemar(0, 0) == 1
