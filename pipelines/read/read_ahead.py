"""Sequential reading for network disks: the frames of many batches fetched in storage order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from pipelines.plan.planner import BatchPlan
from pipelines.read.thread_pool import StoppedError

TICK = 0.1  # seconds between two checks of the stop flag
JOIN_TIMEOUT = 5.0  # seconds

Fetch = Callable[[list[int], list[np.ndarray], threading.Event], list[Any]]
Storage = Callable[[int], tuple[int, int]]


@dataclass
class PlannedBatch:
    """A plan, and what has been read for its rows; None where nothing has been read yet.

    stop: ends the reads of its epoch once it is set.
    """

    plan: BatchPlan
    stop: threading.Event = field(default_factory=threading.Event)
    payload: list[Any] | None = None


@dataclass(frozen=True)
class _End:
    """The last item of the queue; error: what ended it early."""

    error: BaseException | None = None


class _Groups:
    """The background thread that reads one group while the one before it is in use."""

    def __init__(
        self,
        groups: Iterator[list[BatchPlan]],
        read: Callable[[list[BatchPlan]], list[PlannedBatch]],
        stop: threading.Event,
    ) -> None:
        self._groups, self._read, self._stop = groups, read, stop
        self._closed = threading.Event()
        self._queue: queue.SimpleQueue[list[PlannedBatch] | _End] = queue.SimpleQueue()
        # A group is read only once the group before it has been taken: two are in memory.
        self._room = threading.Semaphore(1)
        self._thread = threading.Thread(target=self._run, name="loader-ahead", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def get(self) -> list[PlannedBatch] | _End:
        """The next group. StoppedError once the stop flag is set."""
        while not self._stop.is_set():
            try:
                group = self._queue.get(timeout=TICK)
            except queue.Empty:
                continue
            self._room.release()
            return group
        raise StoppedError

    def close(self) -> None:
        self._closed.set()
        self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        try:
            while self._wait_for_room() and (group := next(self._groups, None)):
                self._queue.put(self._read(group))
            self._queue.put(_End())
        except BaseException as error:
            self._queue.put(_End(error))

    def _wait_for_room(self) -> bool:
        """False once there is nothing more to read for."""
        while not (self._stop.is_set() or self._closed.is_set()):
            if self._room.acquire(timeout=TICK):
                return True
        return False


def read_ahead(
    plans: Iterator[BatchPlan], size: int, fetch: Fetch, storage: Storage, stop: threading.Event
) -> Iterator[PlannedBatch]:
    """The plans with their payload, read in groups of up to `size` batches.

    fetch: reads frames (F,) of each of the given ids; storage: (tar, offset) of an id; stop: ends
    the reading once it is set.
    """
    groups = _Groups(grouped(plans, size), partial(read_group, fetch, storage, stop), stop)
    groups.start()
    try:
        while not isinstance(group := groups.get(), _End):
            yield from group
        if group.error is not None:
            raise group.error
    finally:
        groups.close()


def grouped(plans: Iterator[BatchPlan], size: int) -> Iterator[list[BatchPlan]]:
    """Groups of 1, 2, 4, ... plans, up to `size`: the first batch waits for no other's reads."""
    count = 1
    while group := list(islice(plans, count)):
        yield group
        count = min(2 * count, size)


def read_group(
    fetch: Fetch, storage: Storage, stop: threading.Event, group: list[BatchPlan]
) -> list[PlannedBatch]:
    """Read the batches of a group together, in the order in which they are stored."""
    slots = [(batch, row) for batch, plan in enumerate(group) for row in range(len(plan.ids))]
    slots.sort(key=lambda slot: storage(int(group[slot[0]].ids[slot[1]])))
    ids = [int(group[batch].ids[row]) for batch, row in slots]
    read = fetch(ids, [group[batch].frames[row] for batch, row in slots], stop)
    payloads: list[list[Any]] = [[None] * len(plan.ids) for plan in group]
    for (batch, row), payload in zip(slots, read, strict=True):
        payloads[batch][row] = payload
    return [PlannedBatch(plan, stop, rows) for plan, rows in zip(group, payloads, strict=True)]
