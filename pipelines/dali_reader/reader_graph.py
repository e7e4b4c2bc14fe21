"""The reader graph of `--loader.reader webdataset`: reads tars, samples frames, draws crops.

    reader graph: fn.readers.webdataset -> sampling -> pruning
    decode graph: fn.decoders.video or .image -> crop -> resize

There are two graphs because DALI cannot checkpoint its video decoder. The reader graph runs on the
CPU, has checkpoints of about 1 KB, and prunes each file to what the sampled frames need; the decode
graph is in `decode_graph.py`. Python only verifies checksums. The order is a local shuffle inside
each rank's share of the tars, so it depends on the number of ranks, and whole files are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.errors import require
from pipelines.dali_reader.pruning import Table, prune_frames, prune_groups, read_table, unrepeated
from pipelines.dali_reader.sampling import eval_picks, train_picks
from pipelines.decode.dali_errors import classify
from pipelines.decode.graph import GraphSpec, dali
from pipelines.errors import LoaderUsageError
from pipelines.plan.crops import AugmentConfig
from pipelines.plan.sampling import SamplingConfig
from pipelines.read.filesystems import is_network

DRAWS = 6  # of a crop: y, x, scale, aspect, swap; of the flip
# Outputs of the reader graph. sizes: bytes of each JPEG; picks, gather: see `gops.Container`.
OUTPUTS = ("encoded", "frames", "source", "draws", "colours")
OUTPUTS_OF_INPUT = {"jpeg": ("sizes",), "mp4": ("picks", "gather")}


@dataclass(frozen=True)
class StreamSpec:
    """Properties of the reader graph and the decode graph.

    graph: of the decoder. augment: None in evaluation. clips: K test clips, None for the centred
    snippets of training and validation. resize_short: short side that evaluation crops refer to.
    gop: frames of a fragment of the stored mp4, 0 where it has no fragments. shuffle: videos in the
    shuffle buffer.

    Raises:
        LoaderUsageError: for settings that DALI's reader does not support.
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
        return self.graph.batch // (self.frames if self.graph.input == "jpeg" else 1)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of the reader graph."""
        return OUTPUTS + OUTPUTS_OF_INPUT[self.graph.input]

    @property
    def draws(self) -> bool:
        """Whether the decode graph has an input of draws: DALI removes unused inputs."""
        return self.augment is not None and (self.graph.flip or self.augment.kind != "centre")


def _require(condition: bool, name: str, must: str, value: object) -> None:
    require(condition, name, f"{must} with loader.reader webdataset", value, LoaderUsageError)


def build_reader(
    spec: StreamSpec, tars: dict[str, str], *, seed: int, rank: int, world: int, state: bytes | None
) -> Any:
    """Build the reader graph of one rank.

    tars: path of a tar -> path of its .idx. state: a checkpoint of the same graph, or None.
    """
    fn = dali().fn

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
        encoded, frames_npy = _read_tars(tars, rank, world, spec)
        source = fn.get_property(encoded, key="source_info")
        draws = fn.random.uniform(range=[0.0, 1.0], shape=[DRAWS])
        table = read_table(frames_npy)
        if spec.augment is not None:
            frames = train_picks(table.count, spec.sampling)
        else:
            frames = eval_picks(table.count, spec.sampling, spec.clips)
        data, *positions = _prune(encoded, table, frames, spec)
        return data, frames, source, draws, _colour_factors(spec.augment), *positions

    pipeline = graph()
    pipeline.build()
    return pipeline


def _read_tars(tars: dict[str, str], rank: int, world: int, spec: StreamSpec) -> tuple[Any, Any]:
    """The mp4 and the frames.npy of each sample of this rank's share of the tars."""
    train = spec.augment is not None
    return dali().fn.readers.webdataset(
        paths=list(tars),
        index_paths=list(tars.values()),
        ext=["mp4", "frames.npy"],
        missing_component_behavior="error",
        # Mapped files are read twice as fast from a local disk. On a network disk each page fault
        # waits, and truncating a mapped file kills the process.
        dont_use_mmap=is_network(Path(next(iter(tars)))),
        shard_id=rank,
        num_shards=world,
        random_shuffle=train,
        initial_fill=spec.shuffle,
        pad_last_batch=True,
        stick_to_shard=not train,
        name="reader",
    )


def _prune(encoded: Any, table: Table, frames: Any, spec: StreamSpec) -> list[Any]:
    """The bytes to decode, and the positions of the frames in them (OUTPUTS_OF_INPUT)."""
    if spec.graph.input == "jpeg":
        return [*prune_frames(encoded, table, frames, spec.frames)]
    picks, count, gather = unrepeated(frames, spec.frames)
    if spec.gop:
        encoded, picks = prune_groups(encoded, table, picks, spec.frames, spec.gop)
    return [encoded, dali().fn.slice(picks, start=0, end=count, axes=[0]), gather]


def _colour_factors(augment: AugmentConfig | None) -> Any:
    """Factors of brightness, contrast and saturation, and the turn of the hue in degrees (4,)."""
    fn = dali().fn
    if augment is None:
        return dali().types.Constant(np.array([1, 1, 1, 0], np.float32))
    strength = [augment.brightness, augment.contrast, augment.saturation, augment.hue * 360]
    draws = fn.random.uniform(range=[-1.0, 1.0], shape=[4])
    neutral = dali().types.Constant(np.array([1, 1, 1, 0], np.float32))
    return neutral + draws * dali().types.Constant(np.array(strength, np.float32))


def run_reader(pipeline: Any, spec: StreamSpec) -> dict[str, Any]:
    """Run one iteration of the reader graph; returns its outputs by name.

    DecodeError for a sample without an mp4 or frames.npy, LoaderError for a fault of the machine.
    """
    try:
        return dict(zip(spec.outputs, pipeline.run(), strict=True))
    except RuntimeError as error:
        raise classify(str(error)) from None
