"""What the loaders see of `fn.readers.webdataset`: an epoch of batches with ids and labels."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.dali_reader.decode_graph import StreamBatch, cut
from pipelines.dali_reader.reader_graph import StreamSpec, build_reader, run_reader
from pipelines.decode.decoder import DecodeError, first_line
from pipelines.errors import LoaderError
from pipelines.feeder import Loaded
from pipelines.plan.planner import RUNS, BatchPlan, raw_stream
from pipelines.read.gops import keep
from pipelines.read.jpeg_header import JpegHeaders
from shards import Split


def fragment_frames(split: Split) -> int:
    """Frames of a fragment of the stored mp4; 0 where it has none."""
    return 0 if split.codec == "mjpeg" else split.gop


class Stream:
    """Runs graph A of one rank, epoch by epoch."""

    def __init__(self, split: Split, spec: StreamSpec, *, seed: int, rank: int, world: int) -> None:
        self.split, self.spec, self.seed = split, spec, seed
        self.rank, self.world = rank, world
        self._tars = {str(path): number for number, path in enumerate(split.tars)}
        samples = split.samples
        self._places = (samples["tar"].astype(np.int64) << 44) + samples["offset"]
        self.pipeline: Any = None
        self._seen: set[int] = set()
        self._headers = JpegHeaders()

    def open(self, epoch: int, skip: int, batches: int, state: bytes | None) -> Iterator[Any]:
        """Start an epoch after `skip` of its `batches`: from a checkpoint, else by reading on.

        The order of the tars and the seed of shuffling and drawing follow from (seed, epoch).
        LoaderError where the tars cannot be opened; DALI's RuntimeError where a checkpoint was
        given, which may be to blame: whether they open without it the caller can find out.
        """
        keys = raw_stream(self.seed, epoch, RUNS, len(self._tars) + 1)
        tars = list(self._tars)
        if self.spec.augment is not None:
            tars = [tars[number] for number in np.argsort(keys[:-1], kind="stable")]
        # Staged tars leave their index behind.
        home = self.split.root / self.split.name
        indexed = {tar: str(home / f"{Path(tar).stem}.idx") for tar in tars}
        try:
            self.pipeline = build_reader(
                self.spec, indexed, seed=int(keys[-1] >> np.uint64(33)),
                rank=self.rank, world=self.world, state=state,
            )  # fmt: skip
        except RuntimeError as error:
            if state is not None:
                raise
            raise LoaderError(
                f"{home}: DALI's reader cannot open it: {first_line(str(error))} (a lost .idx is "
                "made again by tools/shard.py reindex; a lost tar can do without with "
                "loader.reader frames)"
            ) from None
        self._seen.clear()
        for _ in range(0 if state else skip):
            run_reader(self.pipeline, self.spec)
        return iter(range(skip, batches))

    def load(self) -> tuple[Loaded, dict[int, str]]:
        """The next batch of the epoch, and what is wrong with its videos by slot."""
        try:
            outputs = run_reader(self.pipeline, self.spec)
        except DecodeError as error:
            raise LoaderError(
                f"{self.split.root}: {error} (loader.reader webdataset cannot leave a video out; "
                "loader.reader frames can)"
            ) from None
        ids = np.array([self._id(bytes(np.asarray(item))) for item in outputs["source"]])
        if self.spec.augment is None:
            # The reader fills up its last batch with a repetition.
            fresh = [int(i) not in self._seen and not (ids[:row] == i).any() for row, i in
                     enumerate(ids)]  # fmt: skip
            ids = np.where(fresh, ids, -1)
            self._seen |= set(ids.tolist())
        rows = np.flatnonzero(ids >= 0).tolist()
        encoded = StreamBatch(outputs, list(range(len(ids)))).part(rows)
        faults = {slot: fault for slot, row in enumerate(rows)
                  if (fault := self._fault(int(ids[row]), outputs, row)) is not None}  # fmt: skip
        loaded = Loaded(
            self._plan(ids),
            rows,
            encoded if rows else None,
            state=self.pipeline.checkpoint(),
        )
        return loaded, faults

    def _fault(self, sample: int, outputs: dict[str, Any], row: int) -> str | None:
        """What is wrong with the bytes that would be decoded, by the sums of the index."""
        data, frames = (np.asarray(outputs[name][row]) for name in ("encoded", "frames"))
        info = self.split.samples[sample]
        table = self.split.frames[int(info["first_frame"]) :][: int(info["num_frames"])]
        try:
            if self.spec.graph.head == "image":
                rows = table[frames]
                pieces, size = cut(data, rows["size"]), int(rows["size"].sum())
            else:
                kept = keep(self.split, sample, np.unique(frames))
                frames, size = kept.held, kept.size
                rows = table[frames]
                pieces = kept.cut(data, rows)
        except IndexError:
            return "the index does not fit the video"
        if len(data) != size:
            return f"{len(data)} bytes where the index says {size}"
        for frame, piece, crc in zip(frames.tolist(), pieces, rows["crc32"].tolist(), strict=True):
            if zlib.crc32(piece.data) != crc:
                return f"frame {frame} is corrupt (CRC32)"
            if self.spec.graph.head == "image":
                fault = self._headers.fault(piece, int(info["height"]), int(info["width"]))
                if fault is not None:
                    return f"frame {frame}: {fault}"
        return None

    def _id(self, source: bytes) -> int:
        """Sample id from "path:offset:name"."""
        path, offset, _ = source.decode().rsplit(":", 2)
        place = (self._tars[path] << 44) + int(offset)
        found = int(np.searchsorted(self._places, place))
        if found == len(self._places) or self._places[found] != place:
            raise LoaderError(f"{path}: no sample at byte {offset} by the index: reindex the set")
        return found

    def _plan(self, ids: np.ndarray) -> BatchPlan:
        """A plan as far as it is known outside the graph: ids and labels."""
        labels, count = self.split.samples["label"][np.maximum(ids, 0)], len(ids)
        return BatchPlan(
            ids=ids,
            labels=np.where(ids >= 0, labels.astype(np.int64), -1),
            frames=np.zeros((count, self.spec.frames), np.int64),
            boxes=np.zeros((count, self.spec.graph.crops, 4), np.float32),
            flips=np.zeros(count, bool),
            colours=np.zeros((count, 4), np.float32),
            repeats=np.zeros(count, np.int64),
        )
