"""What the training and the evaluation loader share: a source, a decoder, one feeder at a time."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pipelines.config import LoaderConfig
from pipelines.dali_reader.decode_graph import StreamDecoder
from pipelines.dali_reader.source import Stream
from pipelines.decode.decoder import Decoder, EncodedBatch
from pipelines.decode.graph import GraphSpec
from pipelines.errors import LoaderError
from pipelines.feeder import Feeder, Loaded
from pipelines.plan.planner import BatchPlan
from pipelines.read.filesystems import is_network
from pipelines.read.frames import FrameSource, SampleError
from pipelines.read.gops import ContainerSource, pyav_frames
from pipelines.watchdog import Activity
from shards import Split

LIVE: weakref.WeakSet[Loader] = weakref.WeakSet()  # what a forked child must leave alone


class Loader(ABC):
    """Plans in, decoded batches out; a subclass says what becomes of a broken video."""

    def __init__(
        self, split: Split, config: LoaderConfig, spec: GraphSpec, frames: int, device: str
    ) -> None:
        self.split, self.config, self.device = split, config, torch.device(device)
        self.activity = Activity()
        self._on_pyav = spec.head == "frames"
        kind = FrameSource if spec.head == "image" else ContainerSource
        self.source = kind(
            split, self.activity, threads=config.read_threads, gap=_gap_kb(split, config) << 10
        )
        self._spec, self._frames = spec, frames
        self._stream: Stream | None = None
        self._decoder: Decoder | None = None
        self._feeder: Feeder | None = None
        self._held: deque[tuple[Any, Any]] = deque()
        self._owner = os.getpid()
        LIVE.add(self)
        # Also runs when the interpreter ends, while DALI's threads can still be stopped in order.
        self._finalizer = weakref.finalize(self, Loader._shut, self.__dict__)

    def close(self) -> None:
        """Stop all threads and free the graph; the loader cannot be used afterwards."""
        self._finalizer()

    @staticmethod
    def _shut(parts: dict[str, Any]) -> None:
        feeder, decoder = parts["_feeder"], parts["_decoder"]
        if parts["_owner"] != os.getpid():
            return  # see _in_a_fork
        free = feeder is None or feeder.close()
        if decoder is not None and free:
            decoder.close()
        parts["_feeder"] = parts["_decoder"] = None
        parts["source"].close()

    def _run(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[Loaded, float]]:
        """Decoded batches of these plans, with the seconds that the consumer stood still."""
        if not self._finalizer.alive:
            raise LoaderError("this loader has been closed: make a new one")
        if self._owner != os.getpid():
            raise LoaderError("this process is a fork of the one that loads: make a loader here")
        self._end_run()
        if self._decoder is None:
            self._decoder = self._make_decoder()
        feeder = self._feeder = Feeder(
            plans,
            self._load,
            self._repair,
            self._decoder,
            self.activity,
            prefetch=self.config.prefetch,
        )
        feeder.start()
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

    def _make_decoder(self) -> Decoder:
        pinned, prefetch = self.device.type == "cuda", self.config.prefetch
        if self._stream is not None:
            spec = self._stream.spec
            return StreamDecoder(spec, self._frames, pinned=pinned, prefetch=prefetch)
        return Decoder(self._spec, self._frames, pinned=pinned, prefetch=prefetch)

    def _end_run(self) -> None:
        if self._feeder is not None and not self._feeder.close():
            self._decoder = None  # a thread is stuck in it: leave it behind
        self._feeder = None

    def _load(self, plan: BatchPlan) -> Loaded:
        """Read one batch; what cannot be read is replaced or, in evaluation, left out."""
        if self._stream is not None:
            loaded, faults = self._stream.load()
            if faults:
                self._repair_stream(loaded, faults)
            return loaded
        loaded = Loaded(plan, [row for row in range(len(plan.ids)) if plan.ids[row] >= 0], None)
        rows = loaded.rows
        found = plan.found or self._fetch(plan.ids[rows].tolist(), list(plan.frames[rows]))
        plan.found = None
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
        if self._stream is not None:
            return self._repair_stream(loaded, faults)
        payload = dict(zip(loaded.rows, loaded.encoded.payload, strict=True))
        for row, reason in [(loaded.rows[at], faults[at]) for at in sorted(faults)]:
            place = self.source.place(int(loaded.plan.ids[row]))
            payload[row] = self._failed(loaded, row, f"{place}: {reason}")
        self._encode(loaded, payload)

    @abstractmethod
    def _repair_stream(self, loaded: Loaded, faults: dict[int, str]) -> None:
        """The same for the webdataset reader, which has no source to take a stand-in from."""

    @abstractmethod
    def _failed(self, loaded: Loaded, row: int, reason: str) -> Any:
        """Deal with a broken video; returns the bytes that take its place, if any."""

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


def _in_a_fork() -> None:
    """Let a forked child never free DALI's graphs: it has none of the threads they would wait for,
    so that DALI would hang or crash when the child ends."""
    for loader in list(LIVE):
        for holder in (loader._decoder, loader._stream):
            pipeline = getattr(holder, "pipeline", None)
            graph = getattr(pipeline, "_pipe", None)
            if pipeline is not None and graph is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph))
                pipeline._pipe = None


os.register_at_fork(after_in_child=_in_a_fork)


def _gap_kb(split: Split, config: LoaderConfig) -> int:
    """See LoaderConfig.gap_kb."""
    if config.gap_kb is not None:
        return config.gap_kb
    if config.order.kind == "blocked":
        return 8192
    return 256 if split.tars and is_network(split.tars[0]) else 0
