"""The plans of one process's batches, in the order of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from pipelines.plan.crops import eval_boxes
from pipelines.plan.planner import BatchPlan, OrderConfig, TrainPlanner, epoch_order
from pipelines.plan.sampling import SamplingConfig, test_frames, twice_frames, val_frames
from pipelines.rank import Rank
from shards import Split


class EpochPlans(ABC):
    """Plans batches of one process; all processes plan equally many."""

    @abstractmethod
    def __len__(self) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def batches(self, epoch: int, first: int = 0) -> Iterator[BatchPlan]:
        """Plans of an epoch from batch number `first` on."""


class TrainPlans(EpochPlans):
    """Training: whole global batches in the order of (seed, epoch), the tail is dropped.

    batch_size: views of this process, `augment.repeats` of each video.
    """

    def __init__(
        self, planner: TrainPlanner, order: OrderConfig, rank: Rank, batch_size: int
    ) -> None:
        self.planner, self.order_config = planner, order
        self.rank, self.batch_size = rank, batch_size

    def __len__(self) -> int:
        views = len(self.planner.split) * self.planner.augment.repeats
        return views // (self.batch_size * self.rank.world)

    def order(self, epoch: int) -> np.ndarray:
        """Sample ids (N,) in the order of `epoch`, over all processes."""
        tars = self.planner.split.samples["tar"]
        return epoch_order(tars, self.planner.seed, epoch, self.order_config)

    def batches(self, epoch: int, first: int = 0) -> Iterator[BatchPlan]:
        """See EpochPlans."""
        repeats = self.planner.augment.repeats
        per_batch = self.batch_size // repeats  # videos
        own = self.order(epoch)[self.rank.rank :: self.rank.world]
        for batch in range(first, len(self)):
            videos = own[batch * per_batch : (batch + 1) * per_batch]
            yield self.planner.plan(
                epoch, np.repeat(videos, repeats), np.tile(np.arange(repeats), per_batch)
            )


class EvalPlans(EpochPlans):
    """Evaluation: every video once over all processes, in the order of the split.

    clips: K test clips a video, None for the centred snippets of validation. twice: two passes, see
    `twice_frames`.
    """

    def __init__(
        self,
        split: Split,
        sampling: SamplingConfig,
        rank: Rank,
        batch_size: int,
        *,
        clips: int | None,
        crops: int,
        twice: bool = False,
        crop_size: int,
        resize_short: int,
    ) -> None:
        self.split, self.sampling, self.rank, self.batch_size = split, sampling, rank, batch_size
        self.clips, self.crops, self.twice = clips, crops, twice
        self.crop_size, self.resize_short = crop_size, resize_short

    def __len__(self) -> int:
        per_rank = -(-len(self.split) // self.rank.world)
        return -(-per_rank // self.batch_size)

    def batches(self, epoch: int = 0, first: int = 0) -> Iterator[BatchPlan]:
        """See EpochPlans; the last batches are padded with id -1."""
        own = np.arange(self.rank.rank, len(self.split), self.rank.world)
        padded = np.full(len(self) * self.batch_size, -1, np.int64)
        padded[: len(own)] = own
        for ids in padded.reshape(-1, self.batch_size)[first:]:
            yield self._plan(ids.copy())

    def _plan(self, ids: np.ndarray) -> BatchPlan:
        rows = self.split.samples[np.maximum(ids, 0)]
        sizes = zip(rows["height"].tolist(), rows["width"].tolist(), strict=True)
        boxes = [eval_boxes(h, w, self.crops, self.crop_size, self.resize_short) for h, w in sizes]
        return BatchPlan(
            ids=ids,
            labels=np.where(ids >= 0, rows["label"].astype(np.int64), -1),
            frames=np.stack([self._frames(count) for count in rows["num_frames"].tolist()]),
            boxes=np.stack(boxes),
            flips=np.zeros(len(ids), bool),
            colours=np.ones((len(ids), 4), np.float32),
            repeats=np.zeros(len(ids), np.int64),
        )

    def _frames(self, count: int) -> np.ndarray:
        """Frame numbers (F,) of a video of `count` frames."""
        if self.clips is None:
            return val_frames(count, self.sampling).reshape(-1)
        if self.twice:
            return twice_frames(count, self.sampling).reshape(-1)
        return test_frames(count, self.clips, self.sampling).reshape(-1)
