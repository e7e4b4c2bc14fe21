"""What becomes of a broken video: replaced in training, left out in evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from dsanet.errors import printable
from pipelines.batch_source import LoadedBatch, Replacement
from pipelines.errors import LoaderError
from pipelines.plan.planner import TrainPlanner, replacement
from pipelines.quarantine import Quarantine
from pipelines.read.frames import FrameReader, SampleError

ATTEMPTS = 20  # replacements tried for one video


class BrokenVideoPolicy(ABC):
    """Decides what takes the row of a video that cannot be read or decoded."""

    @abstractmethod
    def resolve(self, batch: LoadedBatch, row: int, reason: str) -> Any:
        """Payload of the video that takes the row (see `EncodedBatch`), None for an empty row."""


class OmitBroken(BrokenVideoPolicy):
    """Evaluation: the row stays empty, and the batch lists the video."""

    def resolve(self, batch: LoadedBatch, row: int, reason: str) -> None:
        """Remove the row from `batch.rows`."""
        batch.rows.remove(row)
        batch.replaced[row] = Replacement(int(batch.plan.ids[row]), -1, printable(reason))


class ReplaceBroken(BrokenVideoPolicy):
    """Training: another video, chosen by the id of the broken one alone.

    So neither earlier failures nor the number of ranks changes what a run trains on.
    """

    def __init__(self, planner: TrainPlanner, reader: FrameReader, quarantine: Quarantine) -> None:
        self.planner, self.reader, self.quarantine = planner, reader, quarantine

    def resolve(self, batch: LoadedBatch, row: int, reason: str) -> Any:
        """Plan and read the replacement. LoaderError where none can be read."""
        plan, count, reason = batch.plan, len(self.planner.split), printable(reason)
        self.quarantine.add(int(plan.ids[row]), reason, plan.epoch)
        # A replacement that the decoder refuses gives way to the next one for the same video.
        failed = batch.replaced.get(row) or Replacement(int(plan.ids[row]), -1, reason)
        for attempt in range(failed.attempts, ATTEMPTS):
            other = replacement(failed.video, attempt, count)
            view = self.planner.plan(plan.epoch, np.array([other]), plan.repeats[[row]])
            payload = self.reader.fetch([other], [view.frames[0]], batch.stop)[0]
            if isinstance(payload, SampleError):
                self.quarantine.add(other, str(payload), plan.epoch)
                continue
            for name in ("ids", "labels", "frames", "boxes", "flips", "colours"):
                getattr(plan, name)[row] = getattr(view, name)[0]
            batch.replaced[row] = Replacement(failed.video, other, failed.reason, attempt + 1)
            return payload
        raise LoaderError(
            f"no replacement for a broken video in {ATTEMPTS} attempts: {failed.reason}"
        )
