"""The interface behind both readers: a source turns requests into encoded batches."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pipelines.decode.decoder import Decoder
from pipelines.plan.planner import BatchPlan

Request = TypeVar("Request")


@dataclass(frozen=True)
class Replacement:
    """What became of a broken video.

    video: id of the broken one; replacement: id of the one that took its row, -1 for none;
    attempts: replacements tried so far.
    """

    video: int
    replacement: int
    reason: str
    attempts: int = 0


@dataclass
class LoadedBatch:
    """A batch on its way from the source to the consumer.

    rows: the rows of the plan that hold a video; encoded: their bytes, in the type that the
    source's decoder takes, None where there is nothing to decode; replaced: by row, in the order in
    which the videos failed; seconds: by stage; outputs: those of the decoder; state: see `Batch`;
    stop: of its epoch, see `BatchSource.open`.
    """

    plan: BatchPlan
    rows: list[int]
    encoded: Any = None
    replaced: dict[int, Replacement] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    outputs: Any = None
    state: bytes | None = None
    stop: threading.Event = field(default_factory=threading.Event)


class BatchSource(ABC, Generic[Request]):
    """Reads the batches of one process, epoch by epoch.

    A request is what `load` needs to know of one batch. Requests belong to their epoch: a thread
    that is still busy with an old epoch never disturbs the next one.
    """

    @abstractmethod
    def open(
        self,
        epoch: int,
        first: int = 0,
        state: bytes | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Request]:
        """Requests of an epoch from batch number `first` on.

        state: the `Batch.state` of the batch before, for readers that have one. stop: set to give
        up the epoch; the reads for its requests and batches end soon afterwards, by an exception.
        """

    @abstractmethod
    def load(self, request: Request) -> LoadedBatch:
        """Read one batch; broken videos are replaced or left out."""

    @abstractmethod
    def repair(self, batch: LoadedBatch, faults: dict[int, str]) -> None:
        """Replace or leave out the videos that the decoder refused.

        faults: reasons by row of `batch.encoded`.
        """

    @abstractmethod
    def make_decoder(self, *, pinned: bool = False, prefetch: int = 2) -> Decoder:
        """A decoder for the batches of this source; see `Decoder`."""

    @abstractmethod
    def close(self) -> None:
        """Stop the threads and close the files."""
