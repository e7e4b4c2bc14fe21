"""Seeded damage to video files: bytes flipped, cut out, cut off, spliced in."""

from __future__ import annotations

import numpy as np


def mutate(data: bytes, other: bytes, seed: int) -> bytes:
    """`data` damaged in one of six ways that follows from `seed`; `other` gives foreign bytes."""
    rng = np.random.default_rng(seed)
    way = seed % 6
    at = int(rng.integers(len(data)))
    if way == 0:  # single bits, anywhere
        return _flip(data, rng, 0, len(data), int(rng.integers(1, 20)))
    if way == 1:  # single bits in the head, where the tables often are
        return _flip(data, rng, 0, min(len(data), 4096), int(rng.integers(1, 6)))
    if way == 2:  # the end cut off
        return data[:at]
    if way == 3:  # a piece cut out
        return data[:at] + data[at + int(rng.integers(1, 5000)) :]
    length = int(rng.integers(1, 5000))
    start = int(rng.integers(max(len(other) - length, 1)))
    if way == 4:  # foreign bytes written over
        return data[:at] + other[start : start + length] + data[at + length :]
    return data[:at] + bytes(length) + data[at + length :]  # a hole of zeros


def _flip(data: bytes, rng: np.random.Generator, low: int, high: int, count: int) -> bytes:
    damaged = bytearray(data)
    for position in rng.integers(low, high, count):
        damaged[position] ^= 1 << int(rng.integers(8))
    return bytes(damaged)
