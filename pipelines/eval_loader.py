"""The evaluation loader: every video exactly once over all processes, none ever replaced."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from dsanet.errors import require
from pipelines.batch import Batch
from pipelines.batch_source import BatchSource
from pipelines.broken_videos import OmitBroken
from pipelines.config import LoaderConfig
from pipelines.dali_reader.reader_graph import StreamSpec
from pipelines.dali_reader.source import DaliSource, fragment_frames
from pipelines.decode.backend import choose_decode, graph_spec
from pipelines.decode.graph import GraphSpec
from pipelines.errors import LoaderUsageError
from pipelines.frames_source import FramesSource
from pipelines.loader import Loader, open_reader
from pipelines.plan.epochs import EvalPlans
from pipelines.plan.planner import check_batch
from pipelines.plan.sampling import SamplingConfig
from pipelines.rank import SINGLE_PROCESS, Rank
from pipelines.read.staging import stage
from shards import Split


class EvalLoader(Loader):
    """Every video of a split exactly once over all processes, which all make equally many batches.

    clips None gives validation batches (B, U, T, H, W, 3): centred snippets, one centred crop.
    clips K gives test batches (B, C, K, T, H, W, 3) of C crops, spread as `test_frames` does, or
    with `twice` the 2 U clips of `twice_frames`. An unreadable video is never replaced: its slot
    has valid False, and it is listed in `missing` as (id, reason).
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
        twice: bool = False,
        crop_size: int = 224,
        resize_short: int = 256,
        rank: Rank = SINGLE_PROCESS,
    ) -> None:
        if clips is None and crops != 1:
            raise LoaderUsageError(
                f"crops must be 1 in validation, got {crops}; give clips for test batches"
            )
        if twice:
            _check_twice(sampling, clips, config)
        check_batch(batch_size)
        self.sampling, self.clips, self.crops = sampling, clips, crops
        self.crop_size, self.resize_short = crop_size, resize_short
        self.batch_size, self.rank = batch_size, rank
        self.missing: list[tuple[int, str]] = []
        spec = self._graph_spec(split, config)
        stream = self._stream_spec(split, spec) if config.reader == "webdataset" else None
        split = stage(split, config)
        self.plans = EvalPlans(
            split,
            sampling,
            rank,
            batch_size,
            clips=clips,
            crops=crops,
            twice=twice,
            crop_size=crop_size,
            resize_short=resize_short,
        )
        reader = open_reader(split, config, spec.input)
        policy = OmitBroken()
        source: BatchSource[Any]
        if stream is not None:
            batches = len(self.plans)
            source = DaliSource(
                reader, policy, stream, batches=batches, seed=0, rank=rank, hang=config.hang
            )
        else:
            source = FramesSource(reader, policy, self.plans, spec, self._frames)
        super().__init__(config, reader, source, spec, rank.device)

    @property
    def _frames(self) -> int:
        """Frames of a video, F."""
        snippets = self.sampling.segments if self.clips is None else self.clips
        return snippets * self.sampling.frames

    def _graph_spec(self, split: Split, config: LoaderConfig) -> GraphSpec:
        device = self.rank.device
        return graph_spec(
            choose_decode(split.codec, device, config),
            device,
            config,
            videos=self.batch_size,
            frames=self._frames,
            size=self.crop_size,
            crops=self.crops,
        )

    def _stream_spec(self, split: Split, spec: GraphSpec) -> StreamSpec:
        gop, resize_short = fragment_frames(split), self.resize_short
        return StreamSpec(spec, self.sampling, None, self.clips, resize_short, gop=gop)

    def __len__(self) -> int:
        """Batches of each process."""
        return len(self.plans)

    def __iter__(self) -> Generator[Batch, None, None]:
        T, size = self.sampling.frames, self.crop_size
        shape: tuple[int, ...] = (self.sampling.segments, T, size, size, 3)
        if self.clips is not None:
            shape = (self.crops, self.clips, T, size, size, 3)
        self.missing.clear()
        for batch in self._batches(self._open(0), shape):
            self.missing += [(video, reason) for video, _, reason in batch.replaced]
            yield batch


def _check_twice(sampling: SamplingConfig, clips: int | None, config: LoaderConfig) -> None:
    """Refuse two passes where the number of clips or the reader does not fit."""
    must = f"be {2 * sampling.segments} (2 x sampling.segments) for two passes"
    require(clips == 2 * sampling.segments, "clips", must, clips, LoaderUsageError)
    must = "be frames for two passes over a video"
    require(config.reader == "frames", "loader.reader", must, config.reader, LoaderUsageError)
