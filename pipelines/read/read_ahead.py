"""Sequential reading for network disks: the frames of many batches fetched in storage order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from pipelines.plan.planner import BatchPlan

TICK = 0.2
PATIENCE = 5.0  # seconds for the read under way


def read_ahead(
    plans: Iterator[BatchPlan],
    batches: int,
    fetch: Callable[[list[int], list[np.ndarray]], list[Any]],
    storage: Callable[[int], tuple[int, int]],
) -> Iterator[BatchPlan]:
    """The same plans, `found` filled: groups of `batches` are read in order of `storage` (tar,
    offset), the next group while one is being used."""
    groups: queue.Queue[Any] = queue.Queue(1)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return groups.put(item, timeout=TICK)
            except queue.Full:
                continue

    def work() -> None:
        try:
            while not stop.is_set() and (group := list(islice(plans, batches))):
                _fill(group, fetch, storage)
                put(group)
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="loader-ahead", daemon=True)
    thread.start()
    try:
        while (item := groups.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield from item
    finally:
        stop.set()
        thread.join(PATIENCE)


def _fill(
    group: list[BatchPlan],
    fetch: Callable[[list[int], list[np.ndarray]], list[Any]],
    storage: Callable[[int], tuple[int, int]],
) -> None:
    slots = [(plan, row) for plan in group for row in range(len(plan.ids))]
    slots.sort(key=lambda slot: storage(int(slot[0].ids[slot[1]])))
    ids = [int(plan.ids[row]) for plan, row in slots]
    found = fetch(ids, [plan.frames[row] for plan, row in slots])
    for plan in group:
        plan.found = [None] * len(plan.ids)
    for (plan, row), item in zip(slots, found, strict=True):
        assert plan.found is not None
        plan.found[row] = item
