"""The source of `--loader.reader webdataset`: `fn.readers.webdataset` as batches with ids."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.batch_source import BatchSource, LoadedBatch
from pipelines.broken_videos import BrokenVideoPolicy
from pipelines.dali_reader.decode_graph import StreamBatch, StreamDecoder, split_bytes
from pipelines.dali_reader.reader_graph import StreamSpec, build_reader, run_reader
from pipelines.decode.dali_errors import DecodeError, classify, error_line
from pipelines.decode.fork_guard import guard_against_forks
from pipelines.errors import LoaderError
from pipelines.hang_limits import time_limit
from pipelines.plan.planner import RUNS, BatchPlan, raw_stream
from pipelines.rank import Rank
from pipelines.read.frames import FrameReader
from pipelines.read.gops import extract_groups
from pipelines.read.jpeg_header import JpegHeaderChecker
from shards import Split


def fragment_frames(split: Split) -> int:
    """Frames of a fragment of the stored mp4; 0 where it has none."""
    return 0 if split.codec == "mjpeg" else split.gop


@dataclass
class ReaderEpoch:
    """An epoch under way: the reader graph, the ids that it has read so far, and what stops it."""

    number: int
    pipeline: Any
    stop: threading.Event
    read: set[int] = field(default_factory=set)


class DaliSource(BatchSource[ReaderEpoch]):
    """Batches of whole files that DALI reads one after another.

    reader: reads the replacements of broken videos; batches: of an epoch of this process; hang:
    seconds that one batch may take where `open` reads it.
    """

    def __init__(
        self,
        reader: FrameReader,
        policy: BrokenVideoPolicy,
        spec: StreamSpec,
        *,
        batches: int,
        seed: int,
        rank: Rank,
        hang: float = 0.0,
    ) -> None:
        self.reader, self.policy, self.spec, self.hang = reader, policy, spec, hang
        self.batches, self.seed, self.rank = batches, seed, rank
        self.split = split = reader.split
        self._tars = {str(path): number for number, path in enumerate(split.tars)}
        # Position of each sample in the set, ascending: its tar, then its offset in it.
        self._positions = (split.samples["tar"].astype(np.int64) << 44) + split.samples["offset"]
        self._headers = JpegHeaderChecker()

    def open(
        self,
        epoch: int,
        first: int = 0,
        state: bytes | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[ReaderEpoch]:
        """See BatchSource. Without a `state`, the batches before `first` are read and dropped.

        The order of the tars and the seed of DALI's draws are a function of (seed, epoch). `stop`
        ends the reads of replacements; a read of DALI's own cannot be stopped.

        Raises:
            LoaderError: when DALI cannot open the tars.
            RuntimeError: when DALI refuses the state, or the tars while a state is given.
        """
        keys = raw_stream(self.seed, epoch, RUNS, len(self._tars) + 1)
        tars = list(self._tars)
        if self.spec.augment is not None:
            tars = [tars[number] for number in np.argsort(keys[:-1], kind="stable")]
        with time_limit(self.hang):
            pipeline = self._build(tars, int(keys[-1] >> np.uint64(33)), state)
        for _ in range(0 if state else first):
            with time_limit(self.hang):
                run_reader(pipeline, self.spec)
        return repeat(ReaderEpoch(epoch, pipeline, stop or threading.Event()), self.batches - first)

    def load(self, request: ReaderEpoch) -> LoadedBatch:
        """See BatchSource."""
        try:
            with self.reader.activity.doing(f"DALI reading the tars of {self.split.root}"):
                outputs = run_reader(request.pipeline, self.spec)
        except DecodeError as error:
            raise LoaderError(
                f"{self.split.root}: {error} (loader.reader webdataset cannot leave a video out; "
                "loader.reader frames can)"
            ) from None
        ids = np.array([self._id(bytes(np.asarray(item))) for item in outputs["source"]])
        if self.spec.augment is None:
            ids = _without_padding(ids, request.read)
        rows = np.flatnonzero(ids >= 0).tolist()
        batch = LoadedBatch(self._plan(ids, request.number), rows, stop=request.stop)
        batch.encoded = StreamBatch(outputs, rows.copy()) if rows else None
        batch.state = request.pipeline.checkpoint()
        if faults := self._faults(ids, rows, outputs):
            self.repair(batch, faults)
        return batch

    def repair(self, batch: LoadedBatch, faults: dict[int, str]) -> None:
        """See BatchSource; a replacement takes over the crop and the flip of the broken video."""
        kept = []
        for slot, row in enumerate(batch.rows.copy()):
            if slot in faults:
                location = self.reader.location(int(batch.plan.ids[row]))
                payload = self.policy.resolve(batch, row, f"{location}: {faults[slot]}")
                if payload is None:
                    continue
                batch.encoded.replace(slot, payload)
            kept.append(slot)
        batch.encoded = batch.encoded.part(kept) if kept else None

    def make_decoder(self, *, pinned: bool = False, prefetch: int = 2) -> StreamDecoder:
        """See BatchSource."""
        return StreamDecoder(self.spec, self.spec.frames, pinned=pinned, prefetch=prefetch)

    def close(self) -> None:
        """See BatchSource."""
        self.reader.close()

    def _build(self, tars: list[str], seed: int, state: bytes | None) -> Any:
        """The reader graph over tars in this order.

        LoaderError for a tar that is not a regular file: DALI would wait for a pipe for ever.
        """
        for tar in tars:
            with contextlib.suppress(FileNotFoundError):  # DALI names the one that is missing
                status = os.stat(tar)
                if not stat.S_ISREG(status.st_mode):
                    raise LoaderError(f"{tar}: is not a regular file; copy it again")
        folder = self.split.root / self.split.name  # staged tars have no index beside them
        indexed = {tar: str(folder / f"{Path(tar).stem}.idx") for tar in tars}
        try:
            return guard_against_forks(
                build_reader(
                    self.spec, indexed, seed=seed, rank=self.rank.rank, world=self.rank.world,
                    state=state,
                )
            )  # fmt: skip
        except RuntimeError as error:
            if isinstance(cause := classify(str(error)), LoaderError):
                raise cause from None
            if state is not None:
                raise
            raise LoaderError(
                f"{folder}: DALI cannot open it: {error_line(str(error))} (tools/shard.py reindex "
                "rebuilds a lost .idx; loader.reader frames replaces the videos of a lost tar)"
            ) from None

    def _faults(self, ids: np.ndarray, rows: list[int], outputs: dict[str, Any]) -> dict[int, str]:
        """Slot -> what is wrong with its bytes."""
        faults = {slot: self._fault(int(ids[row]), outputs, row) for slot, row in enumerate(rows)}
        return {slot: fault for slot, fault in faults.items() if fault is not None}

    def _fault(self, sample: int, outputs: dict[str, Any], row: int) -> str | None:
        """What is wrong with the bytes to decode, by the checksums of the index, or None."""
        data, frames = (np.asarray(outputs[name][row]) for name in ("encoded", "frames"))
        info = self.split.samples[sample]
        table = self.split.frames[int(info["first_frame"]) :][: int(info["num_frames"])]
        try:
            if self.spec.graph.input == "jpeg":
                rows = table[frames]
                pieces, size = split_bytes(data, rows["size"]), int(rows["size"].sum())
            else:
                extract = extract_groups(self.split, sample, np.unique(frames))
                frames, size = extract.frames, extract.size
                rows = table[frames]
                pieces = extract.cut(data, rows)
        except (IndexError, ValueError, OverflowError) as error:
            return f"the index does not fit the video ({error})"
        if len(data) != size:
            return f"{len(data)} bytes where the index says {size}"
        for frame, piece, crc in zip(frames.tolist(), pieces, rows["crc32"].tolist(), strict=True):
            if zlib.crc32(piece.data) != crc:
                return f"frame {frame} is corrupt (CRC32)"
            if self.spec.graph.input == "jpeg":
                fault = self._headers.find_fault(piece, int(info["height"]), int(info["width"]))
                if fault is not None:
                    return f"frame {frame}: {fault}"
        return None

    def _id(self, source: bytes) -> int:
        """Sample id from "path:offset:name"."""
        path, offset, _ = source.decode().rsplit(":", 2)
        position = (self._tars[path] << 44) + int(offset)
        sample = int(np.searchsorted(self._positions, position))
        if sample == len(self._positions) or self._positions[sample] != position:
            raise LoaderError(
                f"{path}: the index has no sample at byte {offset}; rebuild it with "
                "tools/shard.py reindex"
            )
        return sample

    def _plan(self, ids: np.ndarray, epoch: int) -> BatchPlan:
        """Ids and labels; the graphs draw the rest."""
        labels, count = self.split.samples["label"][np.maximum(ids, 0)], len(ids)
        return BatchPlan(
            ids=ids,
            labels=np.where(ids >= 0, labels.astype(np.int64), -1),
            frames=np.zeros((count, self.spec.frames), np.int64),
            boxes=np.zeros((count, self.spec.graph.crops, 4), np.float32),
            flips=np.zeros(count, bool),
            colours=np.zeros((count, 4), np.float32),
            repeats=np.zeros(count, np.int64),
            epoch=epoch,
        )


def _without_padding(ids: np.ndarray, read: set[int]) -> np.ndarray:
    """Ids with -1 for those that the reader repeats to fill its last batch; adds them to `read`."""
    new = []
    for sample in ids.tolist():
        new.append(sample not in read)
        read.add(sample)
    return np.where(new, ids, -1)
