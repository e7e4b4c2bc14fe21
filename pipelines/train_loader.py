"""Training batches: an order that is the same for every world size, and nothing ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.batch import Batch
from pipelines.config import LoaderConfig
from pipelines.dali_reader.reader_graph import StreamSpec
from pipelines.dali_reader.source import Stream, fragment_frames
from pipelines.decode.backend import choose_decode, graph_spec
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.feeder import Loaded
from pipelines.loader import Loader
from pipelines.plan.crops import AugmentConfig
from pipelines.plan.planner import (
    LANES,
    BatchPlan,
    TrainPlanner,
    check_batch,
    check_world,
    epoch_order,
    replacement,
)
from pipelines.plan.sampling import SamplingConfig
from pipelines.quarantine import Quarantine
from pipelines.read.frames import SampleError
from pipelines.read.read_ahead import read_ahead
from pipelines.read.staging import lane_tars, node_ranks, stage, warn_of_network
from shards import Split

ATTEMPTS = 20  # replacements tried for one video


class TrainLoader(Loader):
    """Training batches whose order and draws are a function of (seed, epoch, position) alone.

    Position counts views of videos over all ranks. LoaderError for sizes that do not divide, and
    when more videos are broken than `config.bad_share` bears.
    """

    def __init__(
        self,
        split: Split,
        sampling: SamplingConfig,
        augment: AugmentConfig,
        config: LoaderConfig,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        quarantine: Path | None = None,
    ) -> None:
        check_world(rank, world)
        split = self._on_scratch(split, config, seed, rank, world)
        check_batch(batch_size)
        if batch_size % augment.repeats:
            raise LoaderUsageError(
                f"a batch of {batch_size} does not hold whole groups of {augment.repeats} "
                "repeated views (augment.repeats)"
            )
        views = len(split) * augment.repeats
        if views < batch_size * world:
            raise LoaderUsageError(
                f"{split.root / split.name} has {views} views an epoch, fewer than one step takes "
                f"({world} ranks x batch {batch_size}): use a smaller batch"
            )
        self.sampling, self.augment, self.seed = sampling, augment, seed
        self.batch_size, self.rank, self.world = batch_size, rank, world
        decode = choose_decode(split.codec, device, config)
        frames = sampling.segments * sampling.frames
        spec = graph_spec(
            decode, device, config, videos=batch_size, frames=frames, size=augment.size,
            flip=augment.flip > 0, colour=augment.colour,
        )  # fmt: skip
        super().__init__(split, config, spec, frames, device)
        if config.reader == "webdataset":
            stream = StreamSpec(
                spec, sampling, augment, gop=fragment_frames(split), shuffle=config.order.window * 8
            )
            self._stream = Stream(self.split, stream, seed=seed, rank=rank, world=world)
        self.planner = TrainPlanner(split, sampling, augment, seed)
        self.quarantine = Quarantine(quarantine, len(split) // world, config.bad_share, rank)
        self._epoch = 0

    @staticmethod
    def _on_scratch(split: Split, config: LoaderConfig, seed: int, rank: int, world: int) -> Split:
        tars = None
        if config.stage == "lanes":
            if config.order.shares % world:
                raise LoaderUsageError(
                    f"{world} ranks do not divide loader.order.shares {config.order.shares}, so a "
                    "node would need other tars in each epoch: use loader.order.shares 960, or "
                    "loader.stage all"
                )
            order = epoch_order(split.samples["tar"], seed, 0, config.order)
            ranks = [r for r in node_ranks(rank) if r < world]
            tars = lane_tars(split, order, ranks, world).tolist()
        staged = stage(split, config, tars)
        warn_of_network(staged, config)
        return staged

    def samples_per_epoch(self) -> int:
        """Views of one epoch over all ranks: whole global batches, the tail is dropped."""
        return len(self) * self.batch_size * self.world

    def __len__(self) -> int:
        """Global batches of one epoch."""
        return len(self.split) * self.augment.repeats // (self.batch_size * self.world)

    def epoch(self, epoch: int, start: int = 0, state: bytes | None = None) -> Iterator[Batch]:
        """Batches of this rank from position `start`, the views all ranks have already seen.

        state: with the webdataset reader, `Batch.state` of the last batch seen by this rank;
        without it the reader goes through what was seen once more, undecoded.
        """
        step = self.batch_size * self.world
        if start % step or not 0 <= start <= self.samples_per_epoch():
            raise LoaderUsageError(
                f"cannot start at sample {start}: {self.world} ranks x batch {self.batch_size} "
                f"take {step} samples a step, so the start must be a multiple of {step}; use a "
                "number of ranks and a batch size with which it is"
            )
        self._epoch = epoch
        if self._stream is not None:
            plans = self._stream.open(epoch, start // step, len(self), state)
            return self._batches(plans)
        plans = self._plans(epoch, start // step)
        if self.config.order.kind == "blocked":
            plans = read_ahead(plans, self._batches_ahead(), self._fetch, self._storage)
        return self._batches(plans)

    def _storage(self, sample: int) -> tuple[int, int]:
        row = self.split.samples[sample]
        return int(row["tar"]), int(row["offset"])

    def _batches_ahead(self) -> int:
        """Batches whose videos fill the shuffle windows of this rank's lanes, or the memory."""
        videos = self.config.order.window * LANES // self.world
        counts = self.split.manifest["counts"]
        frame = sum(tar["size"] for tar in self.split.manifest["tars"]) / max(1, counts["frames"])
        view = frame * self.sampling.segments * self.sampling.frames
        # Two groups are in memory: one in use, one being read.
        room = (self.config.ahead_mb << 20) / (2 * view)
        return max(1, int(min(videos, room) * self.augment.repeats) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Sample ids (N,) in the order of `epoch`, over all ranks."""
        return epoch_order(self.split.samples["tar"], self.seed, epoch, self.config.order)

    def _plans(self, epoch: int, first_batch: int) -> Iterator[BatchPlan]:
        repeats = self.augment.repeats
        per_step = self.batch_size // repeats  # videos of this rank
        mine = self.order(epoch)[self.rank :: self.world]
        for batch in range(first_batch, len(self)):
            videos = mine[batch * per_step : (batch + 1) * per_step]
            yield self.planner.plan(
                epoch, np.repeat(videos, repeats), np.tile(np.arange(repeats), per_step)
            )

    def _batches(self, plans: Iterator[BatchPlan]) -> Iterator[Batch]:
        U, T, size = self.sampling.segments, self.sampling.frames, self.augment.size
        for loaded, waited in self._run(plans):
            start = time.perf_counter()
            clips = self._clips(loaded, (U, T, size, size, 3))
            loaded.seconds |= {"handover": time.perf_counter() - start, "wait": waited}
            yield Batch(
                clips=clips,
                labels=torch.from_numpy(loaded.plan.labels),
                ids=loaded.plan.ids,
                valid=np.ones(len(clips), bool),
                wait=loaded.seconds,
                replaced=loaded.replaced,
                state=loaded.state,
            )

    def _repair_stream(self, loaded: Loaded, faults: dict[int, str]) -> None:
        """The same rule as for the default reader; the stand-in takes over crop and flip."""
        for slot in sorted(faults):
            place = self.source.place(int(loaded.plan.ids[slot]))
            found = self._failed(loaded, slot, f"{place}: {faults[slot]}")
            loaded.encoded.put(slot, found)

    def _failed(self, loaded: Loaded, row: int, reason: str) -> Any:
        """Put another video in the place: chosen by the broken one's id alone, so that neither
        what failed before nor the number of ranks changes what a run sees."""
        plan = loaded.plan
        now = int(plan.ids[row])
        self.quarantine.add(now, reason, self._epoch)
        # A stand-in that DALI refuses in its turn gives way to the next of the same chain.
        new = (now, reason, 0, len(loaded.replaced))
        broken, reason, first, entry = loaded.stand_ins.get(row, new)
        for attempt in range(first, ATTEMPTS):
            other = replacement(broken, attempt, len(self.split))
            view = self.planner.plan(self._epoch, np.array([other]), plan.repeats[[row]])
            found = self._fetch([other], [view.frames[0]])[0]
            if isinstance(found, SampleError):
                self.quarantine.add(other, str(found), self._epoch)
                continue
            for name in ("ids", "labels", "frames", "boxes", "flips", "colours"):
                getattr(plan, name)[row] = getattr(view, name)[0]
            loaded.replaced[entry : entry + 1] = [(broken, other, reason)]
            loaded.stand_ins[row] = (broken, reason, attempt + 1, entry)
            return found
        raise LoaderError(f"no replacement for a broken video in {ATTEMPTS} attempts: {reason}")
