"""The training loader: batches in an order that is the same for every number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.batch import Batch
from pipelines.batch_source import BatchSource
from pipelines.broken_videos import ReplaceBroken
from pipelines.config import LoaderConfig
from pipelines.dali_reader.reader_graph import StreamSpec
from pipelines.dali_reader.source import DaliSource, fragment_frames
from pipelines.decode.backend import choose_decode, graph_spec
from pipelines.decode.graph import GraphSpec
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.frames_source import FramesSource
from pipelines.loader import Loader, open_reader
from pipelines.plan.crops import AugmentConfig
from pipelines.plan.epochs import TrainPlans
from pipelines.plan.planner import LANES, TrainPlanner, check_batch, check_world, epoch_order
from pipelines.plan.sampling import SamplingConfig
from pipelines.quarantine import Quarantine
from pipelines.rank import SINGLE_PROCESS, Rank
from pipelines.read.staging import lane_tars, node_ranks, stage, warn_of_network
from shards import Split

SHOWN_KEYS = 5


class TrainLoader(Loader):
    """Training batches whose order and draws are a function of (seed, epoch, position) alone.

    Position counts views of videos over all processes. batch_size: views of this process.
    quarantine: a file that lists broken videos, one JSON object a line.

    Raises:
        LoaderError: for sizes that do not divide, and for samples without a label; while
            iterating, when more than `config.bad_share` of the videos are broken.
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
        rank: Rank = SINGLE_PROCESS,
        quarantine: Path | None = None,
    ) -> None:
        check_world(rank.world)
        _check_sizes(split, augment, rank, batch_size)
        check_labels(split)
        self.sampling, self.augment, self.seed = sampling, augment, seed
        self.batch_size, self.rank = batch_size, rank
        spec = self._graph_spec(split, config)
        stream = self._stream_spec(split, config, spec) if config.reader == "webdataset" else None
        split = _stage(split, config, seed, rank)
        self.planner = TrainPlanner(split, sampling, augment, seed)
        self.plans = TrainPlans(self.planner, config.order, rank, batch_size)
        share = len(split) // rank.world
        self.quarantine = Quarantine(quarantine, split.name, share, config.bad_share, rank.rank)
        reader = open_reader(split, config, spec.input)
        policy = ReplaceBroken(self.planner, reader, self.quarantine)
        source: BatchSource[Any]
        if stream is not None:
            batches = len(self.plans)
            source = DaliSource(
                reader, policy, stream, batches=batches, seed=seed, rank=rank, hang=config.hang
            )
        else:
            ahead = batches_ahead(self.plans, config) if config.order.kind == "blocked" else 0
            frames = sampling.segments * sampling.frames
            source = FramesSource(reader, policy, self.plans, spec, frames, ahead=ahead)
        super().__init__(config, reader, source, spec, rank.device)

    def _graph_spec(self, split: Split, config: LoaderConfig) -> GraphSpec:
        augment, device = self.augment, self.rank.device
        return graph_spec(
            choose_decode(split.codec, device, config),
            device,
            config,
            videos=self.batch_size,
            frames=self.sampling.segments * self.sampling.frames,
            size=augment.size,
            flip=augment.flip > 0,
            colour=augment.colour,
        )

    def _stream_spec(self, split: Split, config: LoaderConfig, spec: GraphSpec) -> StreamSpec:
        gop, shuffle = fragment_frames(split), config.order.window * 8
        return StreamSpec(spec, self.sampling, self.augment, gop=gop, shuffle=shuffle)

    def samples_per_epoch(self) -> int:
        """Views of one epoch over all processes: whole global batches, the tail is dropped."""
        return len(self) * self.batch_size * self.rank.world

    def __len__(self) -> int:
        """Global batches of one epoch."""
        return len(self.plans)

    def order(self, epoch: int) -> np.ndarray:
        """Sample ids (N,) in the order of `epoch`, over all processes."""
        return self.plans.order(epoch)

    def epoch(self, epoch: int, start: int = 0, state: bytes | None = None) -> Iterator[Batch]:
        """Batches of this process from position `start`, the number of views already trained on.

        state: with the webdataset reader, `Batch.state` of the last batch of this process; without
        it the reader reads the views before `start` again, without decoding them.

        Raises:
            LoaderUsageError: when no step begins at `start`.
        """
        step = self.batch_size * self.rank.world
        if start % step or not 0 <= start <= self.samples_per_epoch():
            raise LoaderUsageError(
                f"cannot start at sample {start}: {self.rank.world} ranks x batch "
                f"{self.batch_size} take {step} samples a step, so the start must be a multiple of "
                f"{step}, at most {self.samples_per_epoch()}; choose a number of ranks and a batch "
                "size that fit"
            )
        U, T, size = self.sampling.segments, self.sampling.frames, self.augment.size
        return self._batches(self._open(epoch, start // step, state), (U, T, size, size, 3))


def _check_sizes(split: Split, augment: AugmentConfig, rank: Rank, batch_size: int) -> None:
    check_batch(batch_size)
    if batch_size % augment.repeats:
        raise LoaderUsageError(
            f"batch size {batch_size} must be a multiple of augment.repeats, which is "
            f"{augment.repeats}"
        )
    views = len(split) * augment.repeats
    if views < batch_size * rank.world:
        raise LoaderUsageError(
            f"{split.root / split.name} has {views} views an epoch, fewer than one step takes "
            f"({rank.world} ranks x batch {batch_size}): use a smaller batch"
        )


def check_labels(split: Split) -> None:
    """Refuse a split with samples that have no label of a class.

    Raises:
        LoaderError: with their number and the first keys.
    """
    labels, classes = split.samples["label"], len(split.classes)
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        keys = ", ".join(split.key(int(sample)) for sample in bad[:SHOWN_KEYS])
        raise LoaderError(
            f"{split.root / split.name}: {len(bad)} of {len(split)} samples without a label "
            f"from 0 to {classes - 1} (the first: {keys}), which training needs; add their labels "
            "to the list, or take them out of it, and shard it again"
        )


def _stage(split: Split, config: LoaderConfig, seed: int, rank: Rank) -> Split:
    """The split with its tars on node-local disk, where the configuration says so."""
    tars = None
    if config.stage == "lanes":
        if config.order.shares % rank.world:
            raise LoaderUsageError(
                f"{rank.world} ranks do not divide loader.order.shares {config.order.shares}, so "
                "a node would need other tars in each epoch: use loader.order.shares 960, or "
                "loader.stage all"
            )
        order = epoch_order(split.samples["tar"], seed, 0, config.order)
        ranks = [r for r in node_ranks(rank.rank) if r < rank.world]
        tars = lane_tars(split, order, ranks, rank.world).tolist()
    staged = stage(split, config, tars)
    warn_of_network(staged, config)
    return staged


def batches_ahead(plans: TrainPlans, config: LoaderConfig) -> int:
    """Batches whose videos fill the shuffle windows of this process's lanes, or the memory."""
    planner = plans.planner
    videos = config.order.window * LANES // plans.rank.world
    manifest = planner.split.manifest
    frame = sum(tar["size"] for tar in manifest["tars"]) / max(1, manifest["counts"]["frames"])
    view = frame * planner.sampling.segments * planner.sampling.frames
    # Two groups are in memory: one in use, one being read.
    room = (config.ahead_mb << 20) / (2 * view)
    return max(1, int(min(videos, room) * planner.augment.repeats) // plans.batch_size)
