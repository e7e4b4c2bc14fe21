"""The two threads between a plan and a batch: one reads, one decodes, both ahead of the consumer.

    plans -> [read thread] -> queue -> [decode thread] -> queue -> consumer

Batches keep their order. A failure travels down the queues as a value and is raised at the
consumer. Python handlers of signals run in the main thread, which only ever waits here with a
timeout, so no signal is held up and no thread here can be ended by one.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipelines.decode.decoder import DecodeError, Decoder
from pipelines.errors import LoaderError
from pipelines.plan.planner import BatchPlan
from pipelines.watchdog import Activity, shout

TICK = 0.2  # seconds between two looks at the stop flag


@dataclass
class Loaded:
    """A batch on its way: its plan, the bytes of its `rows`, and in the end DALI's outputs."""

    plan: BatchPlan
    rows: list[int]
    encoded: Any  # EncodedBatch or StreamBatch, None where there is nothing to decode
    replaced: list[tuple[int, int, str]] = field(default_factory=list)
    # Row of the batch -> (id of the broken video, reason, next attempt, place in `replaced`).
    stand_ins: dict[int, tuple[int, str, int, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    outputs: Any = None
    state: bytes | None = None


class Feeder:
    """Iterates over Loaded batches, decoded in the background.

    load: reads one plan (called in the read thread); repair: takes a batch and the faults DALI
    found in it, {row of encoded: reason}, and changes the batch so that it can be tried again.
    """

    def __init__(
        self,
        plans: Iterator[BatchPlan],
        load: Callable[[BatchPlan], Loaded],
        repair: Callable[[Loaded, dict[int, str]], None],
        decoder: Decoder,
        activity: Activity,
        *,
        prefetch: int = 2,
    ) -> None:
        self._load, self._repair = load, repair
        self._decoder, self._activity = decoder, activity
        self._read: queue.Queue[Any] = queue.Queue(prefetch)
        self._done: queue.Queue[Any] = queue.Queue(prefetch)
        self._stop = threading.Event()
        self._pending: deque[Loaded] = deque()
        self._plans, self._owner = plans, os.getpid()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._reading, "loader-source"), (self._decoding, "loader-dali"))
        ]

    def start(self) -> None:
        """Start both threads; the feeder is in its owner's hands by then, who can close it."""
        for thread in self._threads:
            thread.start()

    def get(self, watchdog: float, hang: float) -> Loaded | None:
        """The next batch, None at the end; says where the threads stand while it waits long."""
        start, said = time.monotonic(), 0.0
        if self._owner != os.getpid():
            raise LoaderError("this process is a fork of the one that loads: make a loader here")
        while True:
            if self._stop.is_set():
                raise LoaderError(
                    "this epoch was ended: another one of the same loader was begun, or the loader "
                    "was closed"
                )
            try:
                item = self._done.get(timeout=min(TICK * 5, watchdog))
                break
            except queue.Empty:
                waited = time.monotonic() - start
                if waited - said > watchdog:
                    said = waited
                    short = shout(waited, self._activity)
                    if hang and waited > hang:
                        raise LoaderError(f"{short}: stopped (loader.hang)") from None
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self, patience: float = 10.0) -> bool:
        """Stop both threads; False where one is stuck and has been left behind."""
        self._stop.set()
        deadline = time.monotonic() + patience
        for thread in [thread for thread in self._threads if thread.ident is not None]:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _put(self, target: queue.Queue[Any], item: Any) -> None:
        while not self._stop.is_set():
            try:
                return target.put(item, timeout=TICK)
            except queue.Full:
                continue

    def _reading(self) -> None:
        try:
            start = time.perf_counter()
            for plan in self._plans:
                planned = time.perf_counter()
                loaded = self._load(plan)
                end = time.perf_counter()
                loaded.seconds |= {"plan": planned - start, "read": end - planned}
                self._put(self._read, loaded)
                if self._stop.is_set():
                    return
                start = time.perf_counter()
            self._put(self._read, None)
        except BaseException as error:
            self._put(self._read, error)
        finally:
            if isinstance(self._plans, Generator):
                self._plans.close()  # ends what reads ahead

    def _decoding(self) -> None:
        try:
            self._decode_all()
        except BaseException as error:
            self._put(self._done, error)
        finally:
            self._drain()

    def _decode_all(self) -> None:
        item: Any = self._read  # any value that is not the end
        while not self._stop.is_set() and (item is not None or self._pending):
            # Two batches are under way in DALI, so that it never waits for Python.
            if item is not None and len(self._pending) < 2 and (item := self._next()) is not None:
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, Loaded):
                    self._submit(item)
                    continue
            if self._pending:
                self._finish_oldest()
        if not self._stop.is_set():
            self._put(self._done, None)

    def _next(self) -> Any:
        """What the reader has ready; waits only where DALI has nothing to do."""
        start = time.perf_counter()
        while not self._stop.is_set():
            try:
                item = self._read.get(timeout=TICK) if not self._pending else self._read.get(False)
            except queue.Empty:
                if self._pending:
                    return False
                continue
            if isinstance(item, Loaded):
                item.seconds["starved"] = time.perf_counter() - start
            return item
        return False

    def _submit(self, loaded: Loaded) -> None:
        if loaded.encoded is not None:
            self._decoder.submit(loaded.encoded)
        self._pending.append(loaded)

    def _finish_oldest(self) -> None:
        loaded = self._pending.popleft()
        start = time.perf_counter()
        with self._activity.doing("decoding"):
            failed = not self._collect(loaded)
            others = []
            if failed:
                # Nothing else may be under way while the culprits are looked for.
                while self._pending:
                    other = self._pending.popleft()
                    others.append((other, self._collect(other)))
                self._mend(loaded)
        self._deliver(loaded, start)
        for other, fine in others:
            if not fine:
                self._mend(other)
            self._deliver(other, time.perf_counter())

    def _collect(self, loaded: Loaded) -> bool:
        if loaded.encoded is None:
            return True
        try:
            loaded.outputs = self._decoder.collect()
        except DecodeError:
            return False
        return True

    def _mend(self, loaded: Loaded) -> None:
        """Find and hand over the videos that DALI refuses until the batch decodes."""
        for _ in range(20):
            assert loaded.encoded is not None
            self._repair(loaded, self._decoder.bisect(loaded.encoded))
            self._submit(loaded)
            self._pending.pop()
            if self._collect(loaded):
                return
        raise LoaderError("a batch fails to decode although each of its videos decodes alone")

    def _deliver(self, loaded: Loaded, start: float) -> None:
        decoded = time.perf_counter()
        loaded.seconds["decode"] = decoded - start
        if loaded.outputs is not None and self._decoder.resizes_here:
            with self._activity.doing("resizing"):
                loaded.outputs = self._decoder.tensor(loaded.outputs)
        loaded.seconds["augment"] = time.perf_counter() - decoded
        loaded.encoded = None
        self._put(self._done, loaded)

    def _drain(self) -> None:
        """Leave the graph empty for the next epoch."""
        while self._pending:
            self._collect(self._pending.popleft())
