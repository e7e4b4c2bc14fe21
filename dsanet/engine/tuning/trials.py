"""Trials: steps of the real network beside a loader with other settings. The run stays as it is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from dsanet.engine.launch.distributed import World
from dsanet.engine.setup import Training, build_loader
from dsanet.engine.step import forward_backward
from dsanet.engine.tuning.search import Settings, Trial
from pipelines import Batch, LoaderError, TrainLoader
from pipelines.decode.gpu_libraries import missing_library

SECONDS = 1.5  # of the timed steps of a trial
MIN_STEPS, MAX_STEPS = 2, 60
WARM = 2  # steps before those that are timed


class Trials:
    """Measures steps; every process must make the same calls in the same order."""

    def __init__(self, training: Training) -> None:
        self.training, self.world = training, training.world
        # Beyond the epochs of the run, so that no trial warms the page cache for another one.
        self._epochs = itertools.count(training.state.layout.epochs)

    def alone(self, batch: Batch) -> float:
        """Seconds of a step on this batch, which is in memory."""
        return self._time(itertools.repeat(batch))

    def measure(self, settings: Settings) -> Trial:
        """Try the given settings with these changes."""
        loader: TrainLoader | None = None
        try:
            loader = self._open(settings)
            batches = self._batches(loader)
            next(batches)
            failure = missing_library(loader.spec) or ""
        except LoaderError as error:
            failure = str(error)
        try:
            failures = [text for text in self.world.gather_text(failure) if text]
            if failures:
                return Trial(settings, failure=failures[0])
            return Trial(settings, self._time(batches))
        finally:
            if loader is not None:
                loader.close()

    def _open(self, settings: Settings) -> TrainLoader:
        """A loader of the run's videos, whose tars are staged already."""
        training = self.training
        config = replace(training.config.loader, **settings, stage="off")
        split, layout = training.loader.split, training.state.layout
        return build_loader(
            replace(training.config, loader=config), self.world, split, layout, quarantine=None
        )

    def _batches(self, loader: TrainLoader) -> Iterator[Batch]:
        for epoch in self._epochs:
            yield from loader.epoch(epoch)

    def _time(self, batches: Iterator[Batch]) -> float:
        """Seconds of a step, of the slowest process."""
        for _ in range(WARM):
            probe = self._steps(batches, 1)
        # Rank 0 decides for all, as the passes of a step meet in collectives.
        probe = float(self.world.gather(np.array([probe]))[0][0])
        count = min(max(round(SECONDS / max(probe, 1e-6)), MIN_STEPS), MAX_STEPS)
        seconds = self._steps(batches, count) / count
        return max(float(value[0]) for value in self.world.gather(np.array([seconds])))

    def _steps(self, batches: Iterator[Batch], count: int) -> float:
        """Seconds of this many steps; as in training, the CPU is at most one step ahead."""
        start = time.perf_counter()
        events: list[torch.cuda.Event] = []
        for _ in range(count):
            forward_backward(self.training, next(batches))
            self.training.state.optimizer.zero_grad(set_to_none=True)
            if self.world.device.type == "cuda":
                events.append(torch.cuda.Event())
                events[-1].record()
                if len(events) > 1:
                    events[-2].synchronize()
        if events:
            events[-1].synchronize()
        return time.perf_counter() - start


def deadline(world: World, seconds: float) -> Iterator[bool]:
    """Whether this many seconds have passed, by the clock of rank 0, the same on all processes."""
    start = time.monotonic()
    while True:
        passed = time.monotonic() - start > seconds
        yield bool(world.gather(np.array([passed]))[0][0])
