"""Whole or pruned mp4 files, for the decoders that take a container.

A set of h264, hevc or vp9 is stored as fragmented mp4, one fragment per closed group of pictures,
with the ends of the fragments in the index. Only the header and the fragments that hold wanted
frames are read; the result is a valid, shorter mp4.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsanet.limits import raise_limit
from pipelines.read.frames import FrameReader, SampleError, unexpected
from shards import Split

MAX_CONTAINER = 1 << 30  # most bytes that are read for one view of a video


@dataclass
class Container:
    """A playable file and the frames to decode.

    data: its bytes (uint8). picks: frame numbers inside it, ascending, each once (int32).
    gather: for each frame of the plan its index in picks (int32). extract: which parts of the
    stored file it is.
    """

    data: np.ndarray
    picks: np.ndarray
    gather: np.ndarray
    extract: Extract


class ContainerReader(FrameReader):
    """Reads containers pruned to the groups of pictures that are needed."""

    def _parts(self, sample: int, read: Any, views: list[np.ndarray]) -> list[Any]:
        if len(views) == 1:
            return [read]
        try:
            return [self._part(sample, read, view) for view in views]
        except (IndexError, ValueError) as error:  # the fragments are not those of the frames
            return [unexpected(self.location(sample), error)] * len(views)

    def _fault(self, sample: int, piece: np.ndarray) -> str | None:
        return None  # these decoders raise an error instead of crashing

    def _read(  # type: ignore[override]
        self, sample: int, frames: np.ndarray, stop: threading.Event
    ) -> Container:
        wanted, gather = unrepeated(frames)
        self._table(sample, wanted)
        extract = extract_groups(self.split, sample, wanted)
        sizes = extract.stops - extract.starts
        if extract.stops[-1] > self.split.samples["size"][sample] or sizes.min() < 1:
            raise SampleError(
                f"{self.location(sample)}: the fragment table points outside the file"
            )
        if extract.size > MAX_CONTAINER:
            raise SampleError(
                f"{self.location(sample)}: {extract.size} bytes to read for a view are more than "
                f"{MAX_CONTAINER}"
            )
        data = np.concatenate(self._ranges(sample, extract.starts, sizes, stop))
        table = self._table(sample, extract.frames)
        inside = extract.cut(data, table)
        self._check(sample, extract.frames, table["crc32"], inside)
        return Container(data, extract.picks, gather, extract)

    def _part(self, sample: int, shared: Container, frames: np.ndarray) -> Container:
        """The container of one view, from one that holds the groups of several views."""
        wanted, gather = unrepeated(frames)
        extract = extract_groups(self.split, sample, wanted)
        begins = shared.extract.positions(extract.starts)
        sizes = extract.stops - extract.starts
        pieces = [shared.data[a : a + n] for a, n in zip(begins, sizes, strict=True)]
        return Container(np.concatenate(pieces), extract.picks, gather, extract)


@dataclass
class Extract:
    """Parts of a stored file that together make a shorter one.

    starts, stops: their byte ranges; frames: numbers of the frames in them; picks: numbers (int32)
    that the wanted frames have in the shorter file.
    """

    starts: np.ndarray
    stops: np.ndarray
    frames: np.ndarray
    picks: np.ndarray

    @property
    def size(self) -> int:
        """Bytes of the shorter file."""
        return int((self.stops - self.starts).sum())

    def cut(self, data: np.ndarray, table: np.ndarray) -> list[np.ndarray]:
        """The encoded frames in `data`, the bytes of the shorter file; table: their rows."""
        offsets, sizes = table["offset"].astype(np.int64), table["size"].astype(np.int64)
        begins = self.positions(offsets)
        return [data[a:b] for a, b in zip(begins.tolist(), (begins + sizes).tolist(), strict=True)]

    def positions(self, offsets: np.ndarray) -> np.ndarray:
        """Positions in the shorter file of byte offsets in the stored one."""
        piece = np.searchsorted(self.starts, offsets, side="right") - 1
        before = np.cumsum(self.stops - self.starts) - self.stops
        return np.asarray(offsets + before[piece])


def extract_groups(split: Split, sample: int, wanted: np.ndarray) -> Extract:
    """The header and the groups of pictures that hold the frames `wanted`, which are ascending.

    A file without fragments is taken whole.
    """
    row, gop = split.samples[sample], split.gop
    count = int(row["num_frames"])
    if row["first_fragment"] < 0:
        whole = np.array([0]), np.array([int(row["size"])])
        return Extract(*whole, frames=np.arange(count), picks=wanted.astype(np.int32))
    first = int(row["first_fragment"])
    ends = split.fragments[first : first + int(row["num_fragments"]) + 1].astype(np.int64)
    groups = np.unique(wanted // gop)
    picks = np.searchsorted(groups, wanted // gop) * gop + wanted % gop
    frames = (groups[:, None] * gop + np.arange(gop)).reshape(-1)
    starts, stops = np.r_[0, ends[groups]], np.r_[ends[0], ends[groups + 1]]
    return Extract(starts, stops, frames=frames[frames < count], picks=picks.astype(np.int32))


def unrepeated(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers ascending and each once, and for each of `frames` its index among them.

    Both are int32. A repeated number would restart DALI's decoder.
    """
    picks, gather = np.unique(frames, return_inverse=True)
    return picks.astype(np.int32), gather.reshape(-1).astype(np.int32)


class PyavReader(ContainerReader):
    """Reads frames and decodes them with PyAV, each video on one thread of the pool."""

    def fetch(
        self,
        ids: Sequence[int],
        frames: Sequence[np.ndarray],
        stop: threading.Event | None = None,
    ) -> list[Any]:
        """Decoded frames (F, H, W, 3) of each video, or a SampleError in its place."""
        payload = super().fetch(ids, frames, stop)
        rows = [row for row, item in enumerate(payload) if not isinstance(item, SampleError)]
        locations = [self.location(ids[row]) for row in rows]
        containers = [payload[row] for row in rows]
        samples = [self.split.samples[ids[row]] for row in rows]
        sizes = [(int(s["height"]), int(s["width"])) for s in samples]
        decoded = self.pool.map(decode_with_pyav, containers, locations, sizes, stop=stop)
        for row, item in zip(rows, decoded, strict=True):
            payload[row] = item
        return payload


def decode_with_pyav(
    container: Container, location: str, size: tuple[int, int]
) -> np.ndarray | SampleError:
    """The wanted frames (F, H, W, 3) of a container by PyAV, on one thread.

    size: (H, W) of the index, for which the crops are planned. A SampleError that begins with
    `location` is returned where the container cannot be decoded, or has frames of another size.
    """
    import av

    wanted = container.picks.tolist()
    try:
        with av.open(io.BytesIO(container.data.tobytes()), "r") as file:
            by_number = _decode(file, set(wanted), size)
    except MemoryError:  # no video is at fault; FFmpeg's own has this type, too
        raise
    except av.error.FFmpegError as error:
        raise_limit(error)
        return SampleError(f"{location}: PyAV: {error}")
    except Exception as error:  # a file without a video stream, with frames of another size, ...
        return unexpected(location, error)
    for number in wanted:
        if number not in by_number:
            return SampleError(f"{location}: frame {number} is not in the file")
    return np.stack([by_number[number] for number in wanted])[container.gather]


def _decode(file: Any, wanted: set[int], size: tuple[int, int]) -> dict[int, np.ndarray]:
    """Frame number -> frame (H, W, 3); ValueError for a frame of another size.

    What follows the last wanted frame of a group is never decoded: shard sets have no B-frames, so
    no earlier frame depends on it.
    """
    stream = file.streams.video[0]
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    packets = [packet for packet in file.demux(stream) if packet.size]
    numbers = {packet.pts: number for number, packet in enumerate(packets)}
    decoded: dict[int, np.ndarray] = {}
    for packet in [*packets_needed(packets, wanted), None]:  # None: what the decoder holds back
        for frame in stream.codec_context.decode(packet):
            if (number := numbers.get(frame.pts)) in wanted:
                if (frame.height, frame.width) != size:
                    found = f"{frame.width}x{frame.height} pixels"
                    raise ValueError(f"{found}, but the index has {size[1]}x{size[0]}")
                decoded[number] = frame.to_ndarray(format="rgb24")
    return decoded


def packets_needed(packets: list[Any], wanted: set[int]) -> list[Any]:
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
