"""Evaluation batches: every video exactly once over all ranks, none ever replaced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pipelines.batch import Batch
from pipelines.config import LoaderConfig
from pipelines.dali_reader.reader_graph import StreamSpec
from pipelines.dali_reader.source import Stream, fragment_frames
from pipelines.decode.backend import choose_decode, graph_spec
from pipelines.errors import LoaderUsageError
from pipelines.feeder import Loaded
from pipelines.loader import Loader
from pipelines.plan.crops import eval_boxes
from pipelines.plan.planner import BatchPlan, check_batch
from pipelines.plan.sampling import SamplingConfig, test_frames, val_frames
from pipelines.read.staging import stage
from shards import Split


class EvalLoader(Loader):
    """Every video of a split exactly once over all ranks; all ranks make equally many batches.

    clips None gives validation batches (B, U, T, H, W, 3): centred snippets, one centred crop.
    clips K gives test batches (B, C, K, T, H, W, 3). A video that cannot be had is never replaced:
    its slot has valid False and it is listed in `missing` as (id, reason).
    """

    def __init__(
        self,
        split: Split,
        sampling: SamplingConfig,
        config: LoaderConfig,
        *,
        batch_size: int,
        clips: int | None = None,
        crops: int = 1,
        crop_size: int = 224,
        resize_short: int = 256,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
    ) -> None:
        if clips is None and crops != 1:
            raise LoaderUsageError(f"validation takes 1 crop, not {crops}: give clips as well")
        check_batch(batch_size)
        if not 0 <= rank < world:
            raise LoaderUsageError(f"rank {rank} of {world}: give 0 to {world - 1}")
        self.sampling, self.clips, self.crops = sampling, clips, crops
        self.crop_size, self.resize_short = crop_size, resize_short
        self.batch_size, self.rank, self.world = batch_size, rank, world
        frames = (sampling.segments if clips is None else clips) * sampling.frames
        decode = choose_decode(split.codec, device, config)
        spec = graph_spec(
            decode, device, config, videos=batch_size, frames=frames, size=crop_size, crops=crops
        )
        super().__init__(stage(split, config), config, spec, frames, device)
        self.missing: list[tuple[int, str]] = []
        if config.reader == "webdataset":
            stream = StreamSpec(
                spec, sampling, None, clips, resize_short, gop=fragment_frames(split)
            )
            self._stream = Stream(self.split, stream, seed=0, rank=rank, world=world)

    def __len__(self) -> int:
        """Batches of each rank."""
        per_rank = -(-len(self.split) // self.world)
        return -(-per_rank // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        U, T, size = self.sampling.segments, self.sampling.frames, self.crop_size
        shape = (U, T, size, size, 3)
        if self.clips is not None:
            shape = (self.crops, self.clips, T, size, size, 3)  # type: ignore[assignment]
        self.missing.clear()
        plans = self._plans()
        if self._stream is not None:
            plans = self._stream.open(0, 0, len(self), None)
        for loaded, waited in self._run(plans):
            start = time.perf_counter()
            clips = self._clips(loaded, shape)
            loaded.seconds |= {"handover": time.perf_counter() - start, "wait": waited}
            self.missing += [(video, reason) for video, _, reason in loaded.replaced]
            valid = np.zeros(len(clips), bool)
            valid[loaded.rows] = True
            yield Batch(
                clips=clips,
                labels=torch.from_numpy(loaded.plan.labels),
                ids=loaded.plan.ids,
                valid=valid,
                wait=loaded.seconds,
                replaced=loaded.replaced,
            )

    def _plans(self) -> Iterator[BatchPlan]:
        mine = np.arange(self.rank, len(self.split), self.world)
        padded = np.full(len(self) * self.batch_size, -1, np.int64)
        padded[: len(mine)] = mine
        for ids in padded.reshape(-1, self.batch_size):
            yield self._plan(ids.copy())

    def _plan(self, ids: np.ndarray) -> BatchPlan:
        rows = self.split.samples[np.maximum(ids, 0)]
        frames, boxes = [], []
        for row in rows:
            n, sampling = int(row["num_frames"]), self.sampling
            picked = (
                val_frames(n, sampling)
                if self.clips is None
                else test_frames(n, self.clips, sampling)
            )
            frames.append(picked.reshape(-1))
            height, width = int(row["height"]), int(row["width"])
            boxes.append(eval_boxes(height, width, self.crops, self.crop_size, self.resize_short))
        return BatchPlan(
            ids=ids,
            labels=np.where(ids >= 0, rows["label"].astype(np.int64), -1),
            frames=np.stack(frames),
            boxes=np.stack(boxes),
            flips=np.zeros(len(ids), bool),
            colours=np.ones((len(ids), 4), np.float32),
            repeats=np.zeros(len(ids), np.int64),
        )

    def _repair_stream(self, loaded: Loaded, faults: dict[int, str]) -> None:
        rows = loaded.rows.copy()
        for slot, reason in faults.items():
            self._failed(
                loaded, rows[slot], f"{self.source.place(loaded.plan.ids[rows[slot]])}: {reason}"
            )
        good = [slot for slot in range(len(rows)) if slot not in faults]
        loaded.encoded = loaded.encoded.part(good) if good else None

    def _failed(self, loaded: Loaded, row: int, reason: str) -> Any:
        """Leave the video out and say so."""
        loaded.rows.remove(row)
        loaded.replaced.append((int(loaded.plan.ids[row]), -1, reason))
        return None
