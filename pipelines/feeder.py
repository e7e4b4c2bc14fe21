"""The two threads between a source and the consumer: one reads, one decodes, both ahead of it.

    requests -> [read thread] -> queue -> [decode thread] -> queue -> consumer

Batches keep their order. A failure travels down the queues as an item and is raised at the
consumer. Python runs signal handlers in the main thread, which only ever waits here with a timeout,
so signals are handled at once, and no thread here can be ended by one.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.batch_source import BatchSource, LoadedBatch
from pipelines.decode.dali_errors import MEMORY, DecodeError
from pipelines.decode.decoder import Decoder
from pipelines.errors import HangError, LoaderError
from pipelines.hang_limits import end_soon, time_limit
from pipelines.ranges import named_range
from pipelines.watchdog import Activity, report_stall

TICK = 0.2  # seconds between two checks of the stop flag
UNDER_WAY = 2  # batches in DALI, so that it never waits for Python
END_PATIENCE = 20.0  # seconds without a batch after the signal to end the process
REPAIRS = 20  # times that a batch is repaired before it is given up


@dataclass(frozen=True)
class EpochRequests:
    """The requests of an epoch from `source.open`, and the flag that stops the reads for them."""

    requests: Iterator[Any]
    stop: threading.Event


@dataclass(frozen=True)
class EndOfEpoch:
    """The last item of a queue."""


@dataclass(frozen=True)
class Failure:
    """An error of a thread, to be raised at the consumer."""

    error: BaseException


Item = LoadedBatch | EndOfEpoch | Failure


class Feeder:
    """Iterates over the decoded batches of one epoch, made in the background.

    prefetch: batches that each queue holds.
    """

    def __init__(
        self,
        source: BatchSource[Any],
        epoch: EpochRequests,
        decoder: Decoder,
        activity: Activity,
        *,
        prefetch: int = 2,
    ) -> None:
        self._source, self._requests, self._stop = source, epoch.requests, epoch.stop
        self._decoder, self._activity = decoder, activity
        self._read: queue.Queue[Item] = queue.Queue(prefetch)
        self._done: queue.Queue[Item] = queue.Queue(prefetch)
        self._pending: deque[LoadedBatch] = deque()
        self._refusal = ""  # DALI's last reason to refuse a batch
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in (
                (self._read_all, "loader-source"),
                (self._decode_all, "loader-dali"),
            )
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def get(
        self, watchdog: float, hang: float, ending: Callable[[], bool] = lambda: False
    ) -> LoadedBatch | None:
        """The next batch, None at the end of the epoch.

        Every `watchdog` seconds without a batch, it prints what each thread is doing.

        ending: whether a signal to end the process has come; called every second.

        Raises:
            HangError: after `hang` seconds without a batch (0: never), and END_PATIENCE seconds
                after `ending`.
            LoaderError: once the feeder is closed; errors of the threads are raised here, too.
        """
        # Setting the limit takes half a millisecond, which a batch that is ready need not pay.
        with time_limit(hang) if self._done.empty() else contextlib.nullcontext():
            item = self._wait(watchdog, hang, ending)
        if isinstance(item, Failure):
            raise item.error
        return item if isinstance(item, LoadedBatch) else None

    def _wait(self, watchdog: float, hang: float, ending: Callable[[], bool]) -> Item:
        start, reported, signalled = time.monotonic(), 0.0, math.inf
        tick = min(TICK * 5, watchdog, hang or watchdog)
        while True:
            if self._stop.is_set():
                raise LoaderError(
                    "this epoch has ended: the same loader has begun another one or was closed"
                )
            try:
                return self._done.get(timeout=tick)
            except queue.Empty:
                waited = time.monotonic() - start
            if ending():
                signalled = min(signalled, waited)
            cause = f"after loader.hang {hang:g} s" if hang and waited > hang else ""
            if waited - signalled > END_PATIENCE:
                cause = f"{END_PATIENCE:g} s after the signal to end"
            if cause or waited - reported > watchdog:
                reported = waited
                summary = report_stall(waited, self._activity)
            if cause:
                end_soon()
                raise HangError(
                    f"{summary}; stopped {cause}: see whether that disk answers, then run the same "
                    "command again"
                )

    def close(self, timeout: float = 10.0) -> bool:
        """Stop both threads; False where one hangs and is left behind."""
        self._stop.set()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _put(self, target: queue.Queue[Item], item: Item) -> None:
        while not self._stop.is_set():
            try:
                return target.put(item, timeout=TICK)
            except queue.Full:
                continue

    def _read_all(self) -> None:
        """The read thread."""
        try:
            while (batch := self._read_next()) is not None:
                self._put(self._read, batch)
                if self._stop.is_set():
                    return
            self._put(self._read, EndOfEpoch())
        except BaseException as error:
            self._put(self._read, Failure(error))
        finally:
            if isinstance(self._requests, Generator):
                self._requests.close()  # ends the thread that reads ahead

    def _read_next(self) -> LoadedBatch | None:
        """Plan and read a batch; None at the end of the epoch."""
        start = time.perf_counter()
        with named_range("plan"):
            request = next(self._requests, None)
        if request is None:
            return None
        planned = time.perf_counter()
        with named_range("read"):
            batch = self._source.load(request)
        batch.seconds |= {"plan": planned - start, "read": time.perf_counter() - planned}
        return batch

    def _decode_all(self) -> None:
        """The decode thread."""
        try:
            self._decode_batches()
            self._put(self._done, EndOfEpoch())
        except BaseException as error:
            self._put(self._done, Failure(error))
        finally:
            self._drain()

    def _drain(self) -> None:
        """Leave the graph empty for the next epoch."""
        while self._pending:
            # Nobody waits for these batches, and a failure has reached the consumer already.
            with contextlib.suppress(LoaderError, DecodeError):
                if self._pending.popleft().encoded is not None:
                    self._decoder.collect()

    def _decode_batches(self) -> None:
        reading = True
        while not self._stop.is_set() and (reading or self._pending):
            item = self._next_item() if reading and len(self._pending) < UNDER_WAY else None
            if isinstance(item, Failure):
                raise item.error
            if isinstance(item, LoadedBatch):
                self._submit(item)
                continue
            reading = reading and not isinstance(item, EndOfEpoch)
            if self._pending:
                self._finish_oldest()

    def _next_item(self) -> Item | None:
        """What the read thread has ready; waits only where DALI has nothing to do."""
        start = time.perf_counter()
        while not self._stop.is_set():
            try:
                item = self._read.get(timeout=TICK) if not self._pending else self._read.get(False)
            except queue.Empty:
                if self._pending:
                    return None
                continue
            if isinstance(item, LoadedBatch):
                item.seconds["starved"] = time.perf_counter() - start
            return item
        return None

    def _submit(self, batch: LoadedBatch) -> None:
        if batch.encoded is not None:
            self._decoder.submit(batch.encoded)
        self._pending.append(batch)

    def _finish_oldest(self) -> None:
        batch = self._pending.popleft()
        start = time.perf_counter()
        others = []
        with self._activity.doing("decoding"):
            if not self._collect(batch):
                # The search for the broken videos needs the graph for itself.
                while self._pending:
                    other = self._pending.popleft()
                    others.append((other, self._collect(other)))
                self._repair(batch)
        self._deliver(batch, start)
        for other, decoded in others:
            if not decoded:
                self._repair(other)
            self._deliver(other, time.perf_counter())

    def _collect(self, batch: LoadedBatch) -> bool:
        """Wait for a batch, and resize it where DALI does not; whether both could be done."""
        if batch.encoded is None:
            return True
        try:
            with named_range("decode"):
                batch.outputs = self._decoder.collect()
            decoded = time.perf_counter()
            if self._decoder.resizes_here:
                with self._activity.doing("resizing"), named_range("augment"):
                    batch.outputs = self._decoder.tensor(batch.outputs)
            batch.seconds["augment"] = time.perf_counter() - decoded
        except DecodeError as error:
            self._refusal = str(error)
            return False
        return True

    def _repair(self, batch: LoadedBatch) -> None:
        """Have the videos that DALI refuses replaced or left out until the batch decodes."""
        for _ in range(REPAIRS):
            assert batch.encoded is not None
            faults = self._decoder.bisect(batch.encoded)
            self._source.repair(batch, faults)
            self._submit(batch)
            self._pending.pop()
            if self._collect(batch):
                return
            if not faults:
                raise LoaderError(
                    "DALI cannot decode a batch although it decodes each of its videos alone; "
                    f"memory may be short: {self._refusal} ({MEMORY})"
                )
        raise LoaderError(f"a batch cannot be decoded after {REPAIRS} repairs: {self._refusal}")

    def _deliver(self, batch: LoadedBatch, start: float) -> None:
        augment = batch.seconds.setdefault("augment", 0.0)
        batch.seconds["decode"] = time.perf_counter() - start - augment
        batch.encoded = None
        self._put(self._done, batch)
