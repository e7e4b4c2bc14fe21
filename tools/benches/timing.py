"""Timing: alternating blocks of several contestants, and the cores and CPU time of this process."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_seconds() -> float:
    """CPU seconds used by this process and its running children, such as DataLoader workers."""
    total, tick, me = time.process_time(), os.sysconf("SC_CLK_TCK"), str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if fields[1] == me:
                total += (int(fields[11]) + int(fields[12])) / tick
    return total


def halves_of_cores() -> tuple[list[int], list[int]]:
    """Split this process's cores between the training thread and the loader.

    With one core, or when a GPU trains, both get all cores.
    """
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2 or torch.cuda.is_available():
        return available, available
    return available[: len(available) // 2], available[len(available) // 2 :]


@dataclass(frozen=True)
class Timing:
    """Seconds per call in each block of one contestant."""

    blocks: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.blocks)

    @property
    def spread(self) -> float:
        """(slowest block - fastest block) / median."""
        return (max(self.blocks) - min(self.blocks)) / self.median


def alternate(
    contestants: dict[str, Callable[[], None]], *, blocks: int, calls: int, warmup: int = 1
) -> dict[str, Timing]:
    """Time the contestants in alternating blocks, so that other load on the machine hits all alike.

    Each callable must return only when its work is done, so on a GPU it must synchronise.
    """
    for call in contestants.values():
        for _ in range(warmup):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(blocks):
        for name, call in contestants.items():
            seconds[name].append(time_block(call, calls))
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def time_block(call: Callable[[], None], calls: int) -> float:
    """Seconds per call of a block of `calls`."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
