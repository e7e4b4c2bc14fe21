"""The default source: plans the batches, and reads just the frames that they need."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from pipelines.batch_source import BatchSource, LoadedBatch
from pipelines.broken_videos import BrokenVideoPolicy
from pipelines.decode.decoder import Decoder, EncodedBatch
from pipelines.decode.graph import GraphSpec
from pipelines.plan.epochs import EpochPlans
from pipelines.read.frames import FrameReader, SampleError
from pipelines.read.read_ahead import PlannedBatch, read_ahead


class FramesSource(BatchSource[PlannedBatch]):
    """Batches of planned frames.

    spec, frames: of the decoder, for F frames a video; ahead: batches that are read together in
    storage order before they are needed, 0 for reading each batch alone.
    """

    def __init__(
        self,
        reader: FrameReader,
        policy: BrokenVideoPolicy,
        plans: EpochPlans,
        spec: GraphSpec,
        frames: int,
        *,
        ahead: int = 0,
    ) -> None:
        self.reader, self.policy, self.plans = reader, policy, plans
        self.spec, self.frames, self.ahead = spec, frames, ahead

    def open(
        self,
        epoch: int,
        first: int = 0,
        state: bytes | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[PlannedBatch]:
        """See BatchSource; any batch can be read at once, so `state` is not needed."""
        stop = stop or threading.Event()
        plans = self.plans.batches(epoch, first)
        if self.ahead:
            return read_ahead(plans, self.ahead, self.reader.fetch, self.reader.storage, stop)
        return (PlannedBatch(plan, stop) for plan in plans)

    def load(self, request: PlannedBatch) -> LoadedBatch:
        """See BatchSource."""
        plan, payload = request.plan, request.payload
        rows = [row for row, sample in enumerate(plan.ids.tolist()) if sample >= 0]
        if payload is None:
            ids, frames = plan.ids[rows].tolist(), list(plan.frames[rows])
            payload = self.reader.fetch(ids, frames, request.stop)
        batch = LoadedBatch(plan, rows, stop=request.stop)
        by_row = dict(zip(rows, payload, strict=True))
        for row in rows.copy():
            if isinstance(by_row[row], SampleError):
                by_row[row] = self.policy.resolve(batch, row, str(by_row[row]))
        self._encode(batch, by_row)
        return batch

    def repair(self, batch: LoadedBatch, faults: dict[int, str]) -> None:
        """See BatchSource."""
        by_row = dict(zip(batch.rows, batch.encoded.payload, strict=True))
        for row, reason in [(batch.rows[at], faults[at]) for at in sorted(faults)]:
            location = self.reader.location(int(batch.plan.ids[row]))
            by_row[row] = self.policy.resolve(batch, row, f"{location}: {reason}")
        self._encode(batch, by_row)

    def make_decoder(self, *, pinned: bool = False, prefetch: int = 2) -> Decoder:
        """See BatchSource."""
        return Decoder(self.spec, self.frames, pinned=pinned, prefetch=prefetch)

    def close(self) -> None:
        """See BatchSource."""
        self.reader.close()

    def _encode(self, batch: LoadedBatch, by_row: dict[int, Any]) -> None:
        plan, rows = batch.plan, batch.rows
        batch.encoded = None
        if rows:
            batch.encoded = EncodedBatch(
                payload=[by_row[row] for row in rows],
                boxes=plan.boxes[rows],
                flips=plan.flips[rows],
                colours=plan.colours[rows],
            )
