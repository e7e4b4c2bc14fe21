"""The two loaders: training in an exact order, and evaluation of each video exactly once."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.activity import Activity
from pipelines.batch import Batch
from pipelines.config import LoaderConfig
from pipelines.containers import ContainerSource, pyav_frames
from pipelines.crops import AugmentConfig, eval_boxes
from pipelines.decode import Decoder, EncodedBatch
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.feeder import Feeder, Loaded
from pipelines.graph import GraphSpec
from pipelines.plan import BatchPlan, TrainPlanner, check_world, epoch_order, replacement
from pipelines.quarantine import Quarantine
from pipelines.sampling import SamplingConfig, test_frames, val_frames
from pipelines.source import FrameSource, SampleError
from pipelines.strategy import choose_decode, graph_spec
from shards import Split

ATTEMPTS = 20  # replacements tried for one video


class _Loader:
    """What both loaders share: a source, a decoder and one feeder at a time."""

    def __init__(
        self, split: Split, config: LoaderConfig, spec: GraphSpec, frames: int, device: str
    ) -> None:
        self.split, self.config, self.device = split, config, torch.device(device)
        self.activity = Activity()
        self._on_pyav = spec.head == "frames"
        kind = FrameSource if spec.head == "image" else ContainerSource
        self.source = kind(
            split, self.activity, threads=config.read_threads, gap=(config.gap_kb or 0) << 10
        )
        self._spec, self._frames = spec, frames
        self._decoder: Decoder | None = None
        self._feeder: Feeder | None = None
        self._held: deque[tuple[Any, Any]] = deque()
        # Also runs when the interpreter ends, while DALI's threads can still be stopped in order.
        self._finalizer = weakref.finalize(self, _Loader._shut, self.__dict__)

    def close(self) -> None:
        """Stop all threads and free the graph; the loader cannot be used afterwards."""
        self._finalizer()

    @staticmethod
    def _shut(parts: dict[str, Any]) -> None:
        feeder, decoder = parts["_feeder"], parts["_decoder"]
        free = feeder is None or feeder.close()
        if decoder is not None and free:
            decoder.close()
        parts["_feeder"] = parts["_decoder"] = None
        parts["source"].close()

    def _run(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[Loaded, float]]:
        """Decoded batches of these plans, with the seconds that the consumer stood still."""
        self._end_run()
        if self._decoder is None:
            self._decoder = Decoder(self._spec, self._frames)
        feeder = self._feeder = Feeder(
            plans,
            self._load,
            self._repair,
            self._decoder,
            self.activity,
            prefetch=self.config.prefetch,
        )
        try:
            while True:
                start = time.perf_counter()
                loaded = feeder.get(self.config.watchdog, self.config.hang)
                if loaded is None:
                    return
                yield loaded, time.perf_counter() - start
        finally:
            if self._feeder is feeder:
                self._end_run()

    def _end_run(self) -> None:
        if self._feeder is not None and not self._feeder.close():
            self._decoder = None  # a thread is stuck in it: leave it behind
        self._feeder = None

    def _load(self, plan: BatchPlan) -> Loaded:
        """Read one batch; what cannot be read is replaced or, in evaluation, left out."""
        loaded = Loaded(plan, [row for row in range(len(plan.ids)) if plan.ids[row] >= 0], None)
        rows = loaded.rows
        found = self._fetch(plan.ids[rows].tolist(), list(plan.frames[rows]))
        payload = dict(zip(rows, found, strict=True))
        for row in rows.copy():
            if isinstance(payload[row], SampleError):
                payload[row] = self._failed(loaded, row, str(payload[row]))
        self._encode(loaded, payload)
        return loaded

    def _fetch(self, ids: list[int], frames: list[np.ndarray]) -> list[Any]:
        """Encoded frames, containers or (PyAV) decoded frames of each video, or a SampleError."""
        found: list[Any] = self.source.fetch(ids, frames)
        if not self._on_pyav:
            return found
        good = [row for row, item in enumerate(found) if not isinstance(item, SampleError)]
        places = [self.source.place(ids[row]) for row in good]
        frames = self.source.pool.map(pyav_frames, [found[row] for row in good], places)
        for row, decoded in zip(good, frames, strict=True):
            found[row] = decoded
        return found

    def _encode(self, loaded: Loaded, payload: dict[int, Any]) -> None:
        plan, rows = loaded.plan, loaded.rows
        loaded.encoded = None
        if rows:
            loaded.encoded = EncodedBatch(
                payload=[payload[row] for row in rows],
                boxes=plan.boxes[rows],
                flips=plan.flips[rows],
                colours=plan.colours[rows],
            )

    def _repair(self, loaded: Loaded, faults: dict[int, str]) -> None:
        """Replace or leave out what DALI refused; `faults` counts rows of the encoded batch."""
        assert loaded.encoded is not None
        payload = dict(zip(loaded.rows, loaded.encoded.payload, strict=True))
        for row, reason in [(loaded.rows[at], faults[at]) for at in sorted(faults)]:
            place = self.source.place(int(loaded.plan.ids[row]))
            payload[row] = self._failed(loaded, row, f"{place}: {reason}")
        self._encode(loaded, payload)

    def _failed(self, loaded: Loaded, row: int, reason: str) -> Any:
        """Deal with a broken video; returns the bytes that take its place, if any."""
        raise NotImplementedError

    def _clips(self, loaded: Loaded, shape: tuple[int, ...]) -> torch.Tensor:
        """The clips of all rows, zeros where a row has none."""
        total = len(loaded.plan.ids)
        if loaded.outputs is None:
            return torch.zeros((total, *shape), dtype=torch.uint8, device=self.device)
        clips = loaded.outputs
        if not isinstance(clips, torch.Tensor):
            assert self._decoder is not None
            clips = self._decoder.tensor(loaded.outputs)
            self._hold(loaded.outputs)
        if clips.device != self.device:
            clips = clips.to(self.device, non_blocking=True)
        if len(clips) < total:
            whole = clips.new_zeros((total, *clips.shape[1:]))
            whole[torch.as_tensor(loaded.rows, device=clips.device)] = clips
            clips = whole
        return clips.view(total, *shape)

    def _hold(self, outputs: Any) -> None:
        """Keep DALI's memory until the GPU has done what was launched on the batch before."""
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record()
        self._held.append((event, outputs))
        # The consumer has launched its work on a batch by the time it asks for the next one, so
        # the event recorded after it guards the outputs before it.
        while len(self._held) > 2 and self._held[1][0].query():
            self._held.popleft()


class TrainLoader(_Loader):
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
        if batch_size % augment.repeats:
            raise LoaderUsageError(
                f"a batch of {batch_size} does not hold whole groups of {augment.repeats} "
                "repeated views (augment.repeats)"
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
        self.planner = TrainPlanner(split, sampling, augment, seed)
        self.quarantine = Quarantine(quarantine, len(split), config.bad_share, rank)
        self._epoch = 0

    def samples_per_epoch(self) -> int:
        """Views of one epoch over all ranks: whole global batches, the tail is dropped."""
        return len(self) * self.batch_size * self.world

    def __len__(self) -> int:
        """Global batches of one epoch."""
        return len(self.split) * self.augment.repeats // (self.batch_size * self.world)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of this rank from position `start`, the views all ranks have already seen."""
        step = self.batch_size * self.world
        if start % step or not 0 <= start <= self.samples_per_epoch():
            raise LoaderUsageError(
                f"cannot start at sample {start}: {self.world} ranks x batch {self.batch_size} "
                f"take {step} samples a step, so the start must be a multiple of {step}; use a "
                "number of ranks and a batch size with which it is"
            )
        self._epoch = epoch
        return self._batches(self._plans(epoch, start // step))

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
            )

    def _failed(self, loaded: Loaded, row: int, reason: str) -> Any:
        """Put another video in the place: chosen by the broken one's id alone."""
        plan, broken = loaded.plan, int(loaded.plan.ids[row])
        self.quarantine.add(broken, reason, self._epoch)
        for attempt in range(ATTEMPTS):
            other = replacement(broken, attempt, len(self.split))
            if other in self.quarantine.reasons:
                continue
            view = self.planner.plan(self._epoch, np.array([other]), plan.repeats[[row]])
            found = self._fetch([other], [view.frames[0]])[0]
            if isinstance(found, SampleError):
                self.quarantine.add(other, str(found), self._epoch)
                continue
            for name in ("ids", "labels", "frames", "boxes", "flips", "colours"):
                getattr(plan, name)[row] = getattr(view, name)[0]
            loaded.replaced.append((broken, other, reason))
            return found
        raise LoaderError(f"no replacement for a broken video in {ATTEMPTS} attempts: {reason}")


class EvalLoader(_Loader):
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
        super().__init__(split, config, spec, frames, device)
        self.missing: list[tuple[int, str]] = []

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
        for loaded, waited in self._run(self._plans()):
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

    def _failed(self, loaded: Loaded, row: int, reason: str) -> Any:
        """Leave the video out and say so."""
        loaded.rows.remove(row)
        loaded.replaced.append((int(loaded.plan.ids[row]), -1, reason))
        return None
