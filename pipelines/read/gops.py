"""Whole or pruned mp4 files for the decoders that want a container.

A set of h264, hevc or vp9 is stored as fragmented mp4, one fragment per closed group of pictures,
with the ends of the fragments in the index. Only the header and the fragments that hold wanted
frames are read and handed on; the result is a valid, shorter mp4.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.read.frames import FrameSource, SampleError
from shards import Split


@dataclass
class Container:
    """A playable file and what is wanted of it.

    data: its bytes (uint8). picks: frame numbers inside it, ascending, each once (int32).
    gather: for each frame of the plan its place in picks (int32). kept: what of the file it is.
    """

    data: np.ndarray
    picks: np.ndarray
    gather: np.ndarray
    kept: Kept


class ContainerSource(FrameSource):
    """Reads containers pruned to the groups of pictures that are needed."""

    def _parts(self, sample: int, read: Any, views: list[np.ndarray]) -> list[Any]:
        if len(views) == 1:
            return [read]
        return [self._part(sample, read, view) for view in views]

    def _fault(self, sample: int, piece: np.ndarray) -> str | None:
        return None  # the decoders of containers raise in order

    def _read(self, sample: int, frames: np.ndarray) -> Container:  # type: ignore[override]
        wanted, gather = unrepeated(frames)
        self._table(sample, wanted)
        kept = keep(self.split, sample, wanted)
        if kept.stops[-1] > self.split.samples["size"][sample]:
            raise SampleError(f"{self.place(sample)}: the fragment table points outside the file")
        data = np.concatenate(self._ranges(sample, kept.starts, kept.stops - kept.starts))
        table = self._table(sample, kept.held)
        inside = kept.cut(data, table)
        self._check(sample, kept.held, table["crc32"], inside)
        return Container(data, kept.picks, gather, kept)

    def _part(self, sample: int, shared: Container, frames: np.ndarray) -> Container:
        """What one view needs of a container that holds the groups of several."""
        wanted, gather = unrepeated(frames)
        kept = keep(self.split, sample, wanted)
        begins = shared.kept.places(kept.starts)
        sizes = kept.stops - kept.starts
        pieces = [shared.data[a : a + n] for a, n in zip(begins, sizes, strict=True)]
        return Container(np.concatenate(pieces), kept.picks, gather, kept)


@dataclass
class Kept:
    """What is kept of a file: byte ranges (starts, stops), the frames held in them, and the numbers
    (int32) that the wanted frames have in it."""

    starts: np.ndarray
    stops: np.ndarray
    held: np.ndarray
    picks: np.ndarray

    @property
    def size(self) -> int:
        """Bytes kept."""
        return int((self.stops - self.starts).sum())

    def cut(self, data: np.ndarray, table: np.ndarray) -> list[np.ndarray]:
        """The encoded frames `held` in the kept bytes; table: their rows."""
        offsets, sizes = table["offset"].astype(np.int64), table["size"].astype(np.int64)
        begins = self.places(offsets)
        return [data[a:b] for a, b in zip(begins.tolist(), (begins + sizes).tolist(), strict=True)]

    def places(self, offsets: np.ndarray) -> np.ndarray:
        """Where bytes of the file are in what is kept of it."""
        piece = np.searchsorted(self.starts, offsets, side="right") - 1
        before = np.cumsum(self.stops - self.starts) - self.stops
        return np.asarray(offsets + before[piece])


def keep(split: Split, sample: int, wanted: np.ndarray) -> Kept:
    """The header and the groups of pictures that hold `wanted` (ascending), or the whole file where
    it has no fragments."""
    row, gop = split.samples[sample], split.gop
    count = int(row["num_frames"])
    if row["first_fragment"] < 0:
        whole = np.array([0]), np.array([int(row["size"])])
        return Kept(*whole, held=np.arange(count), picks=wanted.astype(np.int32))
    first = int(row["first_fragment"])
    ends = split.fragments[first : first + int(row["num_fragments"]) + 1].astype(np.int64)
    groups = np.unique(wanted // gop)
    picks = np.searchsorted(groups, wanted // gop) * gop + wanted % gop
    held = (groups[:, None] * gop + np.arange(gop)).reshape(-1)
    starts, stops = np.r_[0, ends[groups]], np.r_[ends[0], ends[groups + 1]]
    return Kept(starts, stops, held=held[held < count], picks=picks.astype(np.int32))


def unrepeated(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers ascending, each once, since a repeated one restarts DALI's decoder, and for
    each of `frames` its place among them; both int32."""
    picks, gather = np.unique(frames, return_inverse=True)
    return picks.astype(np.int32), gather.reshape(-1).astype(np.int32)


def pyav_frames(container: Container, place: str) -> np.ndarray | SampleError:
    """The wanted frames (F, H, W, 3) by PyAV, on one thread."""
    import av

    wanted = container.picks.tolist()
    try:
        with av.open(io.BytesIO(container.data.tobytes()), "r") as file:
            found = _decoded(file, set(wanted))
    except (av.error.FFmpegError, IndexError) as error:
        return SampleError(f"{place}: PyAV: {error}")
    for number in wanted:
        if number not in found:
            return SampleError(f"{place}: frame {number} is not in the file")
    return np.stack([found[number] for number in wanted])[container.gather]


def _decoded(file: Any, wanted: set[int]) -> dict[int, np.ndarray]:
    """Frame number -> frame. What follows a group's last wanted frame is never decoded: without
    B-frames, which these sets do not have, nothing before it needs it."""
    stream = file.streams.video[0]
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    packets = [packet for packet in file.demux(stream) if packet.size]
    numbers = {packet.pts: number for number, packet in enumerate(packets)}
    found: dict[int, np.ndarray] = {}

    def keep(frames: list[Any]) -> None:
        for frame in frames:
            if (number := numbers.get(frame.pts)) in wanted:
                found[number] = frame.to_ndarray(format="rgb24")

    for packet in needed(packets, wanted):
        keep(stream.codec_context.decode(packet))
    keep(stream.codec_context.decode(None))
    return found


def needed(packets: list[Any], wanted: set[int]) -> list[Any]:
    """The packets of each group of pictures up to its last wanted frame."""
    kept: list[Any] = []
    open_group = False
    for number in reversed(range(len(packets))):
        open_group = open_group or number in wanted
        if open_group:
            kept.append(packets[number])
        if packets[number].is_keyframe:
            open_group = False
    return kept[::-1]
