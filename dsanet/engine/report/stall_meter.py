"""The stall meter: how much of a step waits for data, and for which stage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from pipelines import Batch

# Below this share the wait is noise of the clock and of the scheduler.
BOUND = 0.05
# What the loader reports besides its work.
IDLE = {"wait", "starved"}


@dataclass
class Times:
    """Seconds of some steps.

    Attributes:
        wall: all of them.
        stall: idle for want of data: on a GPU the gap between two pieces of its work, on a CPU the
            time blocked in the loader.
        stages: seconds the loader spent by stage (in its own threads, so they may overlap).
        start: waits for the first batch after a pause, which are no part of `wall` and `stall`.
        steps: number of steps.
        videos: number of videos, over all processes.
    """

    wall: float = 0.0
    stall: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)
    start: float = 0.0
    steps: int = 0
    videos: int = 0

    def add(self, other: Times) -> None:
        """Take in the steps of another."""
        self.wall += other.wall
        self.stall += other.stall
        self.start += other.start
        self.stages.update(other.stages)
        self.steps += other.steps
        self.videos += other.videos

    @property
    def share(self) -> float:
        """Stalled part of the time."""
        return min(self.stall / self.wall, 1.0) if self.wall else 0.0

    @property
    def culprit(self) -> str:
        """The stage that took the loader longest."""
        busy = {name: self.stages[name] for name in self.stages.keys() - IDLE}
        if self.stages["starved"] > max(busy.values(), default=0.0):
            return "read"  # decoding stood still for want of bytes
        return max(busy, key=lambda name: busy[name]) if busy else "loader"

    def verdict(self) -> str:
        """One line: data-bound or compute-bound, by how much, and which stage."""
        if not self.steps:
            return "no step was taken"
        step = 1000 * self.wall / self.steps
        if self.share < BOUND:
            return (
                f"compute-bound: {self.share:.1%} of the step waits for data (step {step:.0f} ms)"
            )
        spent = ", ".join(
            f"{name} {1000 * seconds / self.steps:.0f} ms"
            for name, seconds in self.stages.most_common()
            if name not in IDLE
        )
        return (
            f"data-bound: {self.share:.0%} of the step waits for data, longest for {self.culprit} "
            f"(step {step:.0f} ms; by stage {spent or 'unknown'}); without the wait it would be "
            f"{1 / max(1 - self.share, 0.01):.2f} times as fast"
        )


class StepMeter:
    """Clocks the steps of one process.

    On a GPU the stall is read from events, one step late, so measuring never makes the CPU wait.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._blocked = 0.0
        self._stages: Counter[str] = Counter()
        self._start = time.perf_counter()
        self._first = True

    def fetch(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; its arrival is what the meter clocks."""
        before = self._mark()
        start = time.perf_counter()
        batch = next(batches)
        self._blocked += time.perf_counter() - start
        after = self._mark()
        if before is not None and after is not None:
            self._gaps.append((before, after))
        self._stages.update(batch.wait)
        return batch

    def _mark(self) -> torch.cuda.Event | None:
        if not self.cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def restart(self) -> None:
        """Forget the time since the last step: it went into validation or saving."""
        self._start = time.perf_counter()
        self._first = True

    def finish(self, videos: int) -> PendingTimes:
        """End the step; its times can be read once the device has done it."""
        now = time.perf_counter()
        times = Times(now - self._start, self._blocked, self._stages, 0.0, 1, videos)
        pending = PendingTimes(times, self._gaps, self._first)
        self._first = False
        self._start, self._blocked, self._stages, self._gaps = now, 0.0, Counter(), []
        return pending


@dataclass
class PendingTimes:
    """Times of a step that the device may still be working on."""

    times: Times
    gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]]
    first: bool = False

    def read(self) -> Times:
        """The times; the device must have passed the step."""
        if self.gaps:
            self.times.stall = sum(a.elapsed_time(b) for a, b in self.gaps) / 1000
        if self.first:
            times = self.times
            times.start, times.wall, times.stall = times.stall, times.wall - times.stall, 0.0
        return self.times
