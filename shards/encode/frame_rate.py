"""Variable to constant frame rate: which output slots each source frame fills. Pure numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from shards.errors import BadVideo

MAX_GAP = 30.0  # seconds one frame may stand still before the timestamps count as broken
MAX_NATIVE = 120  # frames per second a file may claim for itself
FALLBACK = Fraction(25)


def _usual(rate: Fraction) -> Fraction | None:
    """The integer, or the multiple of 1000/1001, within 0.02 % of a rate."""
    for candidate in (Fraction(round(rate)), Fraction(round(rate * 1001 / 1000)) * 1000 / 1001):
        if candidate > 0 and abs(rate - candidate) <= candidate * Fraction(1, 5000):
            return candidate
    return None


def _simplify(rate: Fraction) -> Fraction:
    """The usual rate close by, else three decimals."""
    return _usual(rate) or Fraction(round(rate * 1000), 1000)


def is_constant(times: Sequence[float], rate: Fraction) -> bool:
    """Whether frame i lies within half a frame of i / rate, for all i (times in seconds)."""
    half = 0.5 / float(rate)
    return all(abs(t - times[0] - i / float(rate)) < half for i, t in enumerate(times))


def native_rate(times: Sequence[float], guessed: Fraction | None) -> Fraction:
    """The rate of a file from its frames' times in seconds, sorted.

    A constant rate is taken from the whole length; a variable one from the median distance, so
    that most frames keep their place. Falls back on the container's word for a single frame.
    """
    if len(times) < 2 or times[-1] <= times[0]:
        good = guessed is not None and 1 <= guessed <= MAX_NATIVE
        return _simplify(guessed) if good and guessed is not None else FALLBACK
    mean = Fraction(len(times) - 1) / Fraction(times[-1] - times[0])
    candidates = (_usual(mean), guessed and _usual(guessed), Fraction(round(mean)), _simplify(mean))
    for rate in candidates:
        if rate and 0 < rate <= MAX_NATIVE and is_constant(times, rate):
            return rate
    gaps = sorted(b - a for a, b in pairwise(times) if b > a)
    median = Fraction(1) / Fraction(gaps[len(gaps) // 2]).limit_denominator(100_000)
    return min(max(_simplify(median), Fraction(1)), Fraction(MAX_NATIVE))


class Cadence:
    """Counts how many slots of a constant rate each frame fills, one frame behind the stream.

    Frame i covers the slots from round(t_i * rate) up to, not including, round(t_{i+1} * rate):
    the nearest-frame rule of FFmpeg's fps filter. `exact` counts one slot per frame instead.
    """

    def __init__(self, rate: Fraction, exact: bool = False) -> None:
        self.rate = rate
        self.exact = exact
        self._origin: float | None = None
        self._slot = 0

    def _slot_of(self, time: float) -> int:
        # The fps filter rounds half away from zero; the small lift undoes timestamp truncation.
        return math.floor((time - (self._origin or 0.0)) * float(self.rate) + 0.5 + 1e-4)

    def start(self, time: float) -> None:
        """Take the first frame's time in seconds as the origin."""
        self._origin = time

    def fill(self, next_time: float) -> int:
        """Slots of the frame before, once the next frame's time (seconds) is known.

        Raises BadVideo for a gap that no video has.
        """
        if self.exact:
            return 1
        slot = self._slot_of(next_time)
        count = max(slot - self._slot, 0)
        if count > MAX_GAP * float(self.rate):
            seconds = count / float(self.rate)
            raise BadVideo("timestamps", f"a gap of {seconds:.0f} s between two frames")
        self._slot += count
        return count
