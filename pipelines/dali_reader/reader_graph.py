"""DALI alone: `fn.readers.webdataset` -> sampling, pruning -> `fn.decoders.video` or `.image`.

Two graphs, since the video decoder cannot be checkpointed: A reads, draws and keeps of each file
what the wanted frames need (CPU, checkpoints of about 1 KB); B decodes, cuts and resizes that.
Python only looks at the checksums. In exchange the order is a local shuffle inside each rank's part
of the tars, so it depends on the number of ranks, and whole files are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.errors import require
from pipelines.dali_reader.pruning import Table, prune_frames, prune_groups, read_table, unrepeated
from pipelines.dali_reader.sampling import eval_picks, train_picks
from pipelines.decode.decoder import DecodeError, error_line
from pipelines.decode.graph import (
    GraphSpec,
    dali,
)
from pipelines.errors import LoaderUsageError
from pipelines.plan.crops import AugmentConfig
from pipelines.plan.sampling import SamplingConfig
from pipelines.read.filesystems import is_network

DRAWS = 6  # box: y, x, scale, aspect, swap; flip
# sizes: bytes of each frame of the image head; picks, gather: see `containers.Container`.
OUTPUTS = ("encoded", "frames", "source", "draws", "colours")
OF_HEAD = {"image": ("sizes",), "video": ("picks", "gather")}


@dataclass(frozen=True)
class StreamSpec:
    """What the two graphs are built for; `augment` None is evaluation, `clips` None validation.

    gop: frames of a fragment of the stored mp4, 0 where it has no fragments.
    """

    graph: GraphSpec
    sampling: SamplingConfig
    augment: AugmentConfig | None
    clips: int | None = None
    resize_short: int = 256
    gop: int = 0
    shuffle: int = 512

    def __post_init__(self) -> None:
        sampling, augment = self.sampling, self.augment
        _require(sampling.mode in ("segments", "spread"), "sampling.mode", "be segments or spread",
                 sampling.mode)  # fmt: skip
        if augment is None:
            return
        _require(augment.kind != "multi_scale", "augment.kind", "not be multi_scale", augment.kind)
        _require(augment.repeats == 1, "augment.repeats", "be 1", augment.repeats)
        rule = augment.flip_classes
        _require(rule == "all", "augment.flip_classes", "be all", rule)

    @property
    def frames(self) -> int:
        """Frames of a video, F."""
        return self.sampling.frames * (self.clips or self.sampling.segments)

    @property
    def videos(self) -> int:
        """Videos of a batch."""
        return self.graph.batch // (self.frames if self.graph.head == "image" else 1)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What graph A gives."""
        return OUTPUTS + OF_HEAD[self.graph.head]

    @property
    def draws(self) -> bool:
        """Whether graph B takes draws: DALI drops inputs that nothing uses."""
        return self.augment is not None and (self.graph.flip or self.augment.kind != "centre")


def _require(condition: bool, name: str, must: str, value: object) -> None:
    require(condition, name, f"{must} with loader.reader webdataset", value, LoaderUsageError)


def build_reader(
    spec: StreamSpec, tars: dict[str, str], *, seed: int, rank: int, world: int, state: bytes | None
) -> Any:
    """Graph A of one rank. tars: path -> its .idx; state: a checkpoint of the same graph."""
    fn = dali().fn
    train = spec.augment is not None

    @dali().pipeline_def(
        batch_size=spec.videos,
        num_threads=1,
        device_id=None,
        seed=seed % (1 << 31),
        enable_checkpointing=True,
        prefetch_queue_depth=2,
        checkpoint=state,
    )
    def graph() -> Any:
        encoded, frames_npy = fn.readers.webdataset(
            paths=list(tars),
            index_paths=list(tars.values()),
            ext=["mp4", "frames.npy"],
            missing_component_behavior="error",
            # Mapping a local file is twice as fast; one that is cut off meanwhile would end the
            # process, and on a network disk every page fault is a wait.
            dont_use_mmap=is_network(Path(next(iter(tars)))),
            shard_id=rank,
            num_shards=world,
            random_shuffle=train,
            initial_fill=spec.shuffle,
            pad_last_batch=True,
            stick_to_shard=not train,
            name="reader",
        )
        source = fn.get_property(encoded, key="source_info")
        x = fn.random.uniform(range=[0.0, 1.0], shape=[DRAWS])
        table = read_table(frames_npy)
        if train:
            frames = train_picks(table.count, spec.sampling)
        else:
            frames = eval_picks(table.count, spec.sampling, spec.clips)
        data, *more = _pruned(encoded, table, frames, spec)
        return data, frames, source, x, _factors(spec.augment), *more

    pipeline = graph()
    pipeline.build()
    return pipeline


def _pruned(encoded: Any, table: Table, frames: Any, spec: StreamSpec) -> list[Any]:
    """What B decodes, and where in it the frames are: outputs OF_HEAD."""
    if spec.graph.head == "image":
        return [*prune_frames(encoded, table, frames, spec.frames)]
    picks, found, gather = unrepeated(frames, spec.frames)
    if spec.gop:
        encoded, picks = prune_groups(encoded, table, picks, spec.frames, spec.gop)
    return [encoded, dali().fn.slice(picks, start=0, end=found, axes=[0]), gather]


def _factors(augment: AugmentConfig | None) -> Any:
    """Brightness, contrast, saturation and hue (4,)."""
    fn = dali().fn
    if augment is None:
        return dali().types.Constant(np.array([1, 1, 1, 0], np.float32))
    strength = [augment.brightness, augment.contrast, augment.saturation, augment.hue * 360]
    x = fn.random.uniform(range=[-1.0, 1.0], shape=[4])
    base = dali().types.Constant(np.array([1, 1, 1, 0], np.float32))
    return base + x * dali().types.Constant(np.array(strength, np.float32))


def run_reader(pipeline: Any, spec: StreamSpec) -> dict[str, Any]:
    """One iteration of graph A. DecodeError where a sample lacks a component."""
    try:
        return dict(zip(spec.outputs, pipeline.run(), strict=True))
    except RuntimeError as error:
        raise DecodeError(error_line(str(error))) from None
