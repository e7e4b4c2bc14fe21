"""Small training loaders, and helpers to compare their batches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import AugmentConfig, LoaderConfig, SamplingConfig, TrainLoader
from shards import Split

SMALL = AugmentConfig(size=32, short_sides=(64, 80))
MEDIUM = AugmentConfig(size=48, short_sides=(64, 80))
ONE = LoaderConfig(threads=1)


def train(
    split: Split, *, augment: AugmentConfig = SMALL, config: LoaderConfig = ONE, **changes: Any
) -> TrainLoader:
    """A loader with batches of 4 and seed 5; changes: other arguments of TrainLoader."""
    settings = {"seed": 5, "batch_size": 4, **changes}
    return TrainLoader(split, SamplingConfig(), augment, config, **settings)


def batches(loader: TrainLoader, start: int = 0) -> list[tuple[list[int], np.ndarray]]:
    """Ids and clips of the rest of epoch 0; closes the loader."""
    result = [(b.ids.tolist(), b.clips.numpy().copy()) for b in loader.epoch(0, start)]
    loader.close()
    return result


def same(one: list, other: list) -> bool:
    """Whether two results of `batches` are equal to the bit."""
    return [a for a, _ in one] == [a for a, _ in other] and all(
        (a == b).all() for (_, a), (_, b) in zip(one, other, strict=True)
    )


def open_tars(split: Split) -> list[str]:
    """Tars of the split that this process has open."""
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    opened = [os.readlink(link) for link in links if link.is_symlink()]
    return [path for path in opened if Path(path) in split.tars]
