"""What the training and the evaluation loader share: batches on the device, one epoch at a time."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from pipelines.batch import Batch
from pipelines.batch_source import BatchSource, LoadedBatch
from pipelines.config import LoaderConfig
from pipelines.decode.graph import GraphSpec
from pipelines.feeder import EpochRequests
from pipelines.read.filesystems import is_network
from pipelines.read.frames import FrameReader
from pipelines.read.gops import ContainerReader, PyavReader
from pipelines.resources import LoaderResources
from pipelines.side_stream import SideStream
from pipelines.watchdog import Activity
from shards import Split

# Input of the graph (`GraphSpec.input`) -> its reader.
READERS: dict[str, type[FrameReader]] = {
    "jpeg": FrameReader,
    "mp4": ContainerReader,
    "pixels": PyavReader,
}


class Loader:
    """Yields the batches of a source, read and decoded in the background.

    Attributes:
        reader: reads any frames of the split; its `meter` counts what was read.
        source: see `BatchSource`.
        spec: the decoding graph.
        ending: whether a signal to end the process has come; called while a batch is waited for.
            The wait is short then, so that a hanging disk is named before the process is killed.
    """

    def __init__(
        self,
        config: LoaderConfig,
        reader: FrameReader,
        source: BatchSource[Any],
        spec: GraphSpec,
        device: str,
    ) -> None:
        self.split, self.config, self.device = reader.split, config, torch.device(device)
        self.reader, self.source, self.spec = reader, source, spec
        self.ending: Callable[[], bool] = lambda: False
        self._side_stream: SideStream | None = None
        self._resources = LoaderResources(
            source,
            reader.activity,
            device=self.device,
            prefetch=config.batches_ready,
        )
        # Also runs when the interpreter exits, while DALI's threads can still be stopped in order.
        self._finalizer = weakref.finalize(self, self._resources.close)

    def close(self) -> None:
        """Stop all threads and free the graph; the loader cannot be used afterwards."""
        self._finalizer()

    def _open(self, epoch: int, first: int = 0, state: bytes | None = None) -> EpochRequests:
        """Requests of an epoch, see `BatchSource.open`."""
        self._resources.check_usable()
        stop = threading.Event()
        return EpochRequests(self.source.open(epoch, first, state, stop), stop)

    def _batches(self, epoch: EpochRequests, shape: tuple[int, ...]) -> Iterator[Batch]:
        """The batches of an epoch; shape: of the clips of one video."""
        feeder = self._resources.start_epoch(epoch)
        try:
            while True:
                self._resources.check_process()
                start = time.perf_counter()
                loaded = feeder.get(self.config.watchdog, self.config.hang, self.ending)
                if loaded is None:
                    return
                received = time.perf_counter()
                clips = self._clips(loaded, shape)
                loaded.seconds["wait"] = received - start
                loaded.seconds["handover"] = time.perf_counter() - received
                yield _batch(loaded, clips)
        finally:
            self._resources.end_epoch(feeder)

    def _clips(self, loaded: LoadedBatch, shape: tuple[int, ...]) -> torch.Tensor:
        """The clips of all rows, zeros where a row has none."""
        total = len(loaded.plan.ids)
        if loaded.outputs is None:
            return torch.zeros((total, *shape), dtype=torch.uint8, device=self.device)
        clips = loaded.outputs
        if not isinstance(clips, torch.Tensor):
            assert self._resources.decoder is not None
            clips = self._resources.decoder.tensor(loaded.outputs)
            if self.device.type == "cuda":
                event = torch.cuda.Event()
                event.record()
                self._resources.outputs_in_use.add(event, loaded.outputs)
        if clips.device != self.device:
            if self._side_stream is None:
                self._side_stream = SideStream(self.device)
            clips = self._side_stream.copy(clips)
        if len(clips) < total:
            whole = clips.new_zeros((total, *clips.shape[1:]))
            whole[torch.as_tensor(loaded.rows, device=clips.device)] = clips
            clips = whole
        return clips.view(total, *shape)


def _batch(loaded: LoadedBatch, clips: torch.Tensor) -> Batch:
    valid = np.zeros(len(clips), bool)
    valid[loaded.rows] = True
    return Batch(
        clips=clips,
        labels=torch.from_numpy(loaded.plan.labels),
        ids=loaded.plan.ids,
        valid=valid,
        wait=loaded.seconds,
        replaced=[(r.video, r.replacement, r.reason) for r in loaded.replaced.values()],
        state=loaded.state,
    )


def open_reader(split: Split, config: LoaderConfig, graph_input: str) -> FrameReader:
    """The reader for an input of the decoding graph (see `GraphSpec.input`)."""
    gap = _gap_kb(split, config) << 10
    return READERS[graph_input](split, Activity(), threads=config.reading_threads, gap=gap)


def _gap_kb(split: Split, config: LoaderConfig) -> int:
    """See LoaderConfig.gap_kb."""
    if config.gap_kb is not None:
        return config.gap_kb
    if config.order.kind == "blocked":
        return 8192
    return 256 if split.tars and is_network(split.tars[0]) else 0
