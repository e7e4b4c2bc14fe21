"""The loader of evaluation in windows: whole videos, each wanted frame decoded once."""

from __future__ import annotations

from collections.abc import Generator

from dsanet.errors import require
from pipelines.batch import Batch
from pipelines.broken_videos import OmitBroken
from pipelines.config import LoaderConfig
from pipelines.decode.backend import choose_decode, graph_spec
from pipelines.errors import LoaderUsageError
from pipelines.frames_source import FramesSource
from pipelines.loader import Loader, open_reader
from pipelines.plan.sampling import SamplingConfig
from pipelines.plan.windows import BLOCK, WindowPlans
from pipelines.rank import SINGLE_PROCESS, Rank
from pipelines.read.staging import stage
from shards import Split


class WindowLoader(Loader):
    """The frames of all windows of every video (see `plan/windows.py`), block by block.

    Yields batches of one row: clips (1, C, BLOCK, H, W, 3) of C crops, with the frame numbers in
    `frames` of the loader's plans (`plans.blocks(id)`), in order. Windows overlap, and a frame that
    several need is decoded once. Each process has other videos. A block that cannot be read has
    valid False, and its reason is in `Batch.replaced`.
    """

    def __init__(
        self,
        split: Split,
        sampling: SamplingConfig,
        config: LoaderConfig,
        *,
        crops: int = 1,
        crop_size: int = 224,
        resize_short: int = 256,
        rank: Rank = SINGLE_PROCESS,
    ) -> None:
        must = "be frames for windows of videos"
        require(config.reader == "frames", "loader.reader", must, config.reader, LoaderUsageError)
        self.crops, self.crop_size = crops, crop_size
        device = rank.device
        decode = choose_decode(split.codec, device, config)
        spec = graph_spec(
            decode, device, config, videos=1, frames=BLOCK, size=crop_size, crops=crops
        )
        split = stage(split, config)
        self.plans = WindowPlans(
            split, sampling, rank, crops=crops, crop_size=crop_size, resize_short=resize_short
        )
        reader = open_reader(split, config, spec.input)
        source = FramesSource(reader, OmitBroken(), self.plans, spec, BLOCK)
        super().__init__(config, reader, source, spec, device)

    def __len__(self) -> int:
        """Blocks of this process."""
        return len(self.plans)

    def __iter__(self) -> Generator[Batch, None, None]:
        shape = (self.crops, BLOCK, self.crop_size, self.crop_size, 3)
        yield from self._batches(self._open(0), shape)
