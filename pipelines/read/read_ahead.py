"""Sequential reading for network disks: the frames of many batches fetched in storage order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from pipelines.plan.planner import BatchPlan

TICK = 0.2  # seconds between two checks of the stop flag
JOIN_TIMEOUT = 5.0  # seconds for the read under way

Fetch = Callable[[list[int], list[np.ndarray]], list[Any]]
Storage = Callable[[int], tuple[int, int]]


@dataclass
class PlannedBatch:
    """A plan, and what has been read for its rows; None where nothing has been read yet."""

    plan: BatchPlan
    payload: list[Any] | None = None


@dataclass(frozen=True)
class _End:
    """The last item of the queue; error: what ended it early."""

    error: BaseException | None = None


class _Groups:
    """The background thread and its queue of groups that have been read."""

    def __init__(
        self, plans: Iterator[BatchPlan], size: int, fetch: Fetch, storage: Storage
    ) -> None:
        self._plans, self._size = plans, size
        self._fetch, self._storage = fetch, storage
        self._queue: queue.Queue[list[PlannedBatch] | _End] = queue.Queue(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loader-ahead", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def get(self) -> list[PlannedBatch] | _End:
        return self._queue.get()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and (group := list(islice(self._plans, self._size))):
                self._put(read_group(group, self._fetch, self._storage))
            self._put(_End())
        except BaseException as error:
            self._put(_End(error))

    def _put(self, item: list[PlannedBatch] | _End) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=TICK)
            except queue.Full:
                continue


def read_ahead(
    plans: Iterator[BatchPlan], size: int, fetch: Fetch, storage: Storage
) -> Iterator[PlannedBatch]:
    """The plans with their payload: groups of `size` batches, one read while another is in use.

    fetch: reads frames (F,) of each of the given ids; storage: (tar, offset) of an id.
    """
    groups = _Groups(plans, size, fetch, storage)
    groups.start()
    try:
        while not isinstance(group := groups.get(), _End):
            yield from group
        if group.error is not None:
            raise group.error
    finally:
        groups.close()


def read_group(group: list[BatchPlan], fetch: Fetch, storage: Storage) -> list[PlannedBatch]:
    """Read the batches of a group together, in the order in which they are stored."""
    slots = [(batch, row) for batch, plan in enumerate(group) for row in range(len(plan.ids))]
    slots.sort(key=lambda slot: storage(int(group[slot[0]].ids[slot[1]])))
    ids = [int(group[batch].ids[row]) for batch, row in slots]
    read = fetch(ids, [group[batch].frames[row] for batch, row in slots])
    payloads: list[list[Any]] = [[None] * len(plan.ids) for plan in group]
    for (batch, row), payload in zip(slots, read, strict=True):
        payloads[batch][row] = payload
    return [PlannedBatch(plan, payload) for plan, payload in zip(group, payloads, strict=True)]
