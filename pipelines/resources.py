"""What a loader owns and must free: its source, decoder, feeder, and the outputs on a GPU."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import Any

import torch

from pipelines.batch_source import BatchSource
from pipelines.decode.decoder import Decoder
from pipelines.errors import LoaderError
from pipelines.feeder import EpochRequests, Feeder
from pipelines.watchdog import Activity

GUARD = 2  # the event of the batch so many later guards the outputs of a batch


class OutputsInUse:
    """Keeps DALI's memory until the GPU has finished the work on the batches in it.

    A consumer has launched its work on a batch before it asks for the batch after the next one (see
    `Batch`), so the event of that one guards the outputs.
    """

    def __init__(self) -> None:
        self._outputs: deque[tuple[torch.cuda.Event, Any]] = deque()

    def add(self, event: torch.cuda.Event, outputs: Any) -> None:
        """Keep the outputs of a new batch; event: recorded when it was handed over."""
        self._outputs.append((event, outputs))
        while len(self._outputs) > GUARD and self._outputs[GUARD][0].query():
            self._outputs.popleft()

    def release(self, device: torch.device) -> None:
        """Give the memory back once the GPU has finished its work, also that on the last batch."""
        if self._outputs:
            with contextlib.suppress(RuntimeError):  # of a GPU that failed; it does no more work
                torch.cuda.synchronize(device)
        self._outputs.clear()


class LoaderResources:
    """Runs one epoch at a time on a source, for batches on `device`.

    It belongs to the process that made it: a forked child has none of its threads, so there it
    refuses to work, and `close` does nothing.
    """

    def __init__(
        self, source: BatchSource[Any], activity: Activity, *, device: torch.device, prefetch: int
    ) -> None:
        self.source, self.activity = source, activity
        self.device, self.prefetch = device, prefetch
        self.outputs_in_use = OutputsInUse()
        self.decoder: Decoder | None = None
        self._feeder: Feeder | None = None
        self._owner = os.getpid()
        self._closed = False

    def start_epoch(self, epoch: EpochRequests) -> Feeder:
        """End the epoch under way, if any, and start the threads of the next one."""
        self.check_usable()
        self.end_epoch()
        if self.decoder is None:
            pinned = self.device.type == "cuda"
            self.decoder = self.source.make_decoder(pinned=pinned, prefetch=self.prefetch)
        feeder = Feeder(self.source, epoch, self.decoder, self.activity, prefetch=self.prefetch)
        self._feeder = feeder  # before it starts, so that `close` finds it in any case
        feeder.start()
        return feeder

    def end_epoch(self, feeder: Feeder | None = None) -> None:
        """Stop the threads of the epoch under way; with a feeder, only if it is that epoch's."""
        current = self._feeder  # another thread may be closing the loader
        if current is None or feeder not in (None, current) or self._in_a_fork():
            return
        if not current.close():
            self.decoder = None  # a thread hangs in it: leave it behind
        if self._feeder is current:
            self._feeder = None

    def check_usable(self) -> None:
        """LoaderError in a forked child, and once all is closed."""
        self.check_process()
        if self._closed:
            raise LoaderError("this loader is closed: make a new one")

    def check_process(self) -> None:
        """LoaderError in a forked child."""
        if self._in_a_fork():
            raise LoaderError(
                "this process is a fork of the one that made the loader: make a loader here"
            )

    def close(self) -> None:
        """Stop all threads, free the graph and close the files; does nothing the second time."""
        if self._closed or self._in_a_fork():
            return
        self._closed = True
        self.end_epoch()
        self.outputs_in_use.release(self.device)
        if self.decoder is not None:
            self.decoder.close()
        self.decoder = None
        self.source.close()

    def _in_a_fork(self) -> bool:
        return self._owner != os.getpid()
