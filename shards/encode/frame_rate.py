"""Converts a variable frame rate to a constant one: which output slots each frame fills."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from shards.errors import BadVideo

MAX_GAP = 30.0  # seconds between two frames; the timestamps of a longer gap count as broken
MAX_NATIVE_RATE = 120  # frames per second; a file that claims more is not believed
FALLBACK_RATE = Fraction(25)


def _standard_rate(rate: Fraction) -> Fraction | None:
    """Return the integer, or the multiple of 1000/1001, within 0.02 % of a rate."""
    for candidate in (Fraction(round(rate)), Fraction(round(rate * 1001 / 1000)) * 1000 / 1001):
        if candidate > 0 and abs(rate - candidate) <= candidate * Fraction(1, 5000):
            return candidate
    return None


def _round_rate(rate: Fraction) -> Fraction:
    """Return the standard rate close to a rate, else the rate with three decimals."""
    return _standard_rate(rate) or Fraction(round(rate * 1000), 1000)


def is_constant(times: Sequence[float], rate: Fraction) -> bool:
    """Whether every frame i is within half a frame of i / rate (times in seconds)."""
    half = 0.5 / float(rate)
    return all(abs(t - times[0] - i / float(rate)) < half for i, t in enumerate(times))


def native_rate(times: Sequence[float], guessed: Fraction | None) -> Fraction:
    """Return the frame rate of a file from the sorted times of its frames in seconds.

    A constant rate follows from the whole length, a variable one from the median distance, so
    that most frames keep their times. For a single frame it is `guessed`, the container's rate.
    """
    if len(times) < 2 or times[-1] <= times[0]:
        if guessed is not None and 1 <= guessed <= MAX_NATIVE_RATE:
            return _round_rate(guessed)
        return FALLBACK_RATE
    mean = Fraction(len(times) - 1) / Fraction(times[-1] - times[0])
    candidates = (
        _standard_rate(mean),
        guessed and _standard_rate(guessed),
        Fraction(round(mean)),
        _round_rate(mean),
    )
    for rate in candidates:
        if rate and 0 < rate <= MAX_NATIVE_RATE and is_constant(times, rate):
            return rate
    return min(max(_median_rate(times), Fraction(1)), Fraction(MAX_NATIVE_RATE))


def _median_rate(times: Sequence[float]) -> Fraction:
    gaps = sorted(b - a for a, b in pairwise(times) if b > a)
    return _round_rate(Fraction(1) / Fraction(gaps[len(gaps) // 2]).limit_denominator(100_000))


def describe_reduction(times: Sequence[float]) -> list[str]:
    """Return a note if `native_rate` of these times (seconds) is lower than the file's rate."""
    if len(times) < 2 or times[-1] <= times[0]:
        return []
    rate = _median_rate(times)
    if rate <= MAX_NATIVE_RATE or native_rate(times, None) < MAX_NATIVE_RATE:
        return []
    return [f"{float(rate):g} frames a second are reduced to {MAX_NATIVE_RATE}"]


class SlotCounter:
    """Counts how many slots of a constant frame rate each frame fills.

    Frame i covers the slots from round(t_i * rate) up to, not including, round(t_{i+1} * rate):
    the nearest-frame rule of FFmpeg's fps filter. `exact` counts one slot per frame instead.
    """

    def __init__(self, rate: Fraction, exact: bool = False) -> None:
        self.rate = rate
        self.exact = exact
        self._start_time: float | None = None
        self._slot = 0

    def _slot_of(self, time: float) -> int:
        # The fps filter rounds half away from zero; 1e-4 makes up for truncated timestamps.
        return math.floor((time - (self._start_time or 0.0)) * float(self.rate) + 0.5 + 1e-4)

    def start(self, time: float) -> None:
        """Set the time of the first frame in seconds."""
        self._start_time = time

    def count_slots(self, next_time: float) -> int:
        """Return the slots of a frame, given the time of the next frame in seconds.

        Raises BadVideo for a gap of more than MAX_GAP seconds.
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
