"""The stall meter: what share of a training step waits for data, and for which stage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from pipelines import Batch

# A smaller share of waiting than this is within the noise of clock and scheduler.
DATA_BOUND = 0.05
# Entries of the loader's times that are waiting, not work.
IDLE = {"wait", "starved"}


@dataclass
class Times:
    """Times of a number of steps, in seconds.

    Attributes:
        wall: in total.
        stall: waiting for data: on a GPU its idle time while the batch was fetched, on a CPU the
            time that the loader blocked.
        stages: work of the loader by stage; its threads overlap, so the sum may exceed `wall`.
        start: waiting for first batches after a pause; not part of `wall` and `stall`.
        steps: number of steps.
        videos: number of videos, over all processes.
        stall_by_rank: waiting of every process where there are several, each one step late.
    """

    wall: float = 0.0
    stall: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)
    start: float = 0.0
    steps: int = 0
    videos: int = 0
    stall_by_rank: Counter[int] = field(default_factory=Counter)

    def add(self, other: Times) -> None:
        """Add the times of other steps."""
        self.wall += other.wall
        self.stall += other.stall
        self.start += other.start
        self.stages.update(other.stages)
        self.steps += other.steps
        self.videos += other.videos
        self.stall_by_rank.update(other.stall_by_rank)

    @property
    def share(self) -> float:
        """Share of the time that this process spent waiting for data, from 0 to 1."""
        return self._share_of(self.stall)

    @property
    def worst(self) -> tuple[int, float]:
        """Rank and share of the process that waited most; the others wait for it in each step."""
        stalls = self.stall_by_rank or {0: self.stall}
        rank = max(stalls, key=lambda rank: stalls[rank])
        share = self._share_of(stalls[rank])
        return (rank, share) if share > self.share else (0, self.share)

    def _share_of(self, stall: float) -> float:
        return min(stall / self.wall, 1.0) if self.wall else 0.0

    @property
    def slowest_stage(self) -> str:
        """The loader's stage that took longest; reading if decoding waited longer for it."""
        busy = {name: self.stages[name] for name in self.stages.keys() - IDLE}
        if self.stages["starved"] > max(busy.values(), default=0.0):
            return "read"
        return max(busy, key=lambda name: busy[name]) if busy else "loader"

    def verdict(self) -> str:
        """One line: data-bound or compute-bound, the share of waiting, and the slowest stage."""
        if not self.steps:
            return "no steps"
        step = 1000 * self.wall / self.steps
        rank, share = self.worst
        where = f" on rank {rank} ({self.share:.1%} on rank 0)" if rank else ""
        if share < DATA_BOUND:
            return (
                f"compute-bound: {share:.1%} of the step waits for data{where} (step {step:.0f} ms)"
            )
        spent = ", ".join(
            f"{name} {1000 * seconds / self.steps:.0f} ms"
            for name, seconds in self.stages.most_common()
            if name not in IDLE
        )
        return (
            f"data-bound: {share:.0%} of the step waits for data{where}, longest for "
            f"{self.slowest_stage} (step {step:.0f} ms; by stage {spent or 'unknown'}); without "
            f"the wait it would be {1 / max(1 - share, 0.01):.2f} times as fast"
        )


class StepMeter:
    """Measures the steps of one process.

    On a GPU the waiting is measured with events that are read one step late, so that the CPU
    never waits for the device.

    clock: seconds from any start.
    """

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.cuda = device.type == "cuda"
        self._clock = clock
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._blocked = 0.0
        self._stages: Counter[str] = Counter()
        self._start = self._clock()
        self._first = True

    def fetch(self, batches: Iterator[Batch]) -> Batch:
        """Take the next batch, and measure how long it takes to come."""
        before = self._record_event()
        start = self._clock()
        batch = next(batches)
        self._blocked += self._clock() - start
        after = self._record_event()
        if before is not None and after is not None:
            self._gaps.append((before, after))
        self._stages.update(batch.wait)
        return batch

    def _record_event(self) -> torch.cuda.Event | None:
        if not self.cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def restart(self) -> None:
        """Leave the time since the last step out: it went into validation or saving."""
        self._start = self._clock()
        self._first = True

    def finish(self, videos: int) -> PendingTimes:
        """End the step; its times can be read once the device has finished it.

        videos: of the step, over all processes.
        """
        now = self._clock()
        times = Times(now - self._start, self._blocked, self._stages, 0.0, 1, videos)
        pending = PendingTimes(times, self._gaps, self._first)
        self._first = False
        self._start, self._blocked, self._stages, self._gaps = now, 0.0, Counter(), []
        return pending


@dataclass
class PendingTimes:
    """Times of a step that the device may still be computing.

    Attributes:
        gaps: events on the GPU before and after each fetch of a batch.
        first: whether it is the first step after a pause.
    """

    times: Times
    gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]]
    first: bool = False

    def read(self) -> Times:
        """The step's times; on a GPU only after the device has finished it."""
        if self.gaps:
            self.times.stall = sum(a.elapsed_time(b) for a, b in self.gaps) / 1000
        if self.first:
            times = self.times
            times.start, times.wall, times.stall = times.stall, times.wall - times.stall, 0.0
        return self.times
