"""Reads the frames that a plan needs, and no others, with pread; their CRC32 is checked."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.errors import printable
from dsanet.limits import LimitError, raise_limit
from pipelines.read.jpeg_header import JpegHeaderChecker
from pipelines.read.open_files import OpenFiles, limit_of_open_files
from pipelines.read.thread_pool import StoppedError, ThreadPool
from pipelines.watchdog import Activity
from shards import Split
from shards.format.row_checks import MAX_FRAME

RETRIES = 2  # of an operating-system error: those of network file systems are often transient
RETRY_DELAY = 0.2  # seconds
READ_LIMIT = 64 << 20  # most bytes of one pread


class SampleError(Exception):
    """An unreadable video; the text names the tar, the key and what is wrong."""

    def __str__(self) -> str:
        return printable(super().__str__())


def unexpected(location: str, error: Exception) -> SampleError:
    """The SampleError for an exception that nobody foresaw, at a video and no other.

    Raises:
        LimitError: where no video is at fault.
    """
    raise_limit(error)
    return SampleError(f"{location}: {type(error).__name__}: {printable(error, 300)}")


@dataclass
class ReadMeter:
    """What a reader has read so far."""

    bytes: int = 0
    reads: int = 0
    videos: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, size: int = 0, reads: int = 0, videos: int = 0) -> None:
        """Count what was read."""
        with self.lock:
            self.bytes += size
            self.reads += reads
            self.videos += videos


class FrameReader:
    """Reads encoded frames of a split with a pool of threads.

    gap: two frames that are at most so many bytes apart are fetched by one read; 0 reads each
    frame alone (local disk), a large gap reads whole stretches (network disk).
    """

    def __init__(self, split: Split, activity: Activity, *, threads: int = 8, gap: int = 0) -> None:
        self.split, self.activity, self.gap = split, activity, gap
        self.meter = ReadMeter()
        self._headers = JpegHeaderChecker()
        self._files = OpenFiles(random=gap < (1 << 20), limit=limit_of_open_files(len(split.tars)))
        self.pool = ThreadPool(threads, "loader-read")

    def fetch(
        self,
        ids: Sequence[int],
        frames: Sequence[np.ndarray],
        stop: threading.Event | None = None,
    ) -> list[Any]:
        """Encoded frames of each video, in the order of `frames`, or a SampleError in its place.

        A video that is asked for more than once (repeated views) is read once. stop: ends the
        reading once it is set; it is checked between two reads, and a read that hangs is left to
        its thread.

        Raises:
            StoppedError: when `stop` is set before all is read.
        """
        stop = stop or threading.Event()
        if len(set(ids)) == len(ids):
            return self.pool.map(self._video, ids, frames, [stop] * len(ids), stop=stop)
        rows: dict[int, list[int]] = {}
        for row, sample in enumerate(ids):
            rows.setdefault(sample, []).append(row)
        wanted = [np.concatenate([frames[row] for row in group]) for group in rows.values()]
        results: list[Any] = [None] * len(ids)
        read = self.pool.map(self._video, list(rows), wanted, [stop] * len(rows), stop=stop)
        for (sample, group), result in zip(rows.items(), read, strict=True):
            views = [frames[row] for row in group]
            broken = isinstance(result, SampleError)
            parts = [result] * len(group) if broken else self._parts(sample, result, views)
            for row, part in zip(group, parts, strict=True):
                results[row] = part
        return results

    def _parts(self, sample: int, read: Any, views: list[np.ndarray]) -> list[Any]:
        """The part of each view of what was read for all of them."""
        ends = np.cumsum([len(view) for view in views])
        return [read[end - len(view) : end] for view, end in zip(views, ends, strict=True)]

    def close(self) -> None:
        """Stop the threads and close the files."""
        self.pool.close()
        self._files.close()

    def storage(self, sample: int) -> tuple[int, int]:
        """Tar number and offset of a sample: sorted by it, samples are read in storage order."""
        row = self.split.samples[sample]
        return int(row["tar"]), int(row["offset"])

    def location(self, sample: int) -> str:
        """Tar and key of a sample, for messages; whatever is wrong with its row."""
        number, tars = int(self.split.samples["tar"][sample]), self.split.tars
        tar = tars[number] if 0 <= number < len(tars) else f"tar {number}"
        return f"{tar} {self.split.key(sample)}"

    def _video(
        self, sample: int, frames: np.ndarray, stop: threading.Event
    ) -> list[np.ndarray] | SampleError:
        for attempt in range(RETRIES + 1):
            try:
                with self.activity.doing(f"reading {self.location(sample)}"):
                    return self._read(sample, frames, stop)
            except FileNotFoundError as error:
                return SampleError(f"{self.location(sample)}: {error.strerror}: {error.filename}")
            except SampleError as error:
                return error
            except OSError as error:
                failure = SampleError(f"{self.location(sample)}: {error}")
                if attempt == RETRIES:
                    raise_limit(error)
                else:
                    stop.wait(RETRY_DELAY)
            except (StoppedError, MemoryError):  # no video is at fault
                raise
            except LimitError:
                if attempt == RETRIES:
                    raise
                stop.wait(RETRY_DELAY)  # others may give back what is lacking
            except Exception as error:  # odd values of the index fail in many ways
                return unexpected(self.location(sample), error)
        return failure

    def _read(self, sample: int, frames: np.ndarray, stop: threading.Event) -> list[np.ndarray]:
        wanted = np.unique(frames)
        table = self._table(sample, wanted)
        offsets, sizes = table["offset"].astype(np.int64), table["size"].astype(np.int64)
        pieces = self._ranges(sample, offsets, sizes, stop)
        self._check(sample, wanted, table["crc32"], pieces)
        by_number = dict(zip(wanted.tolist(), pieces, strict=True))
        return [by_number[frame] for frame in frames.tolist()]

    def _table(self, sample: int, wanted: np.ndarray) -> np.ndarray:
        """Rows of the frame table, checked against the file they point into."""
        row = self.split.samples[sample]
        if wanted[0] < 0 or wanted[-1] >= row["num_frames"]:
            raise SampleError(
                f"{self.location(sample)}: frames {wanted[0]} to {wanted[-1]} are wanted, it has "
                f"{row['num_frames']}"
            )
        rows = int(row["first_frame"]) + wanted
        if rows[0] < 0 or rows[-1] >= len(self.split.frames):
            raise SampleError(f"{self.location(sample)}: the index lacks rows of the frame table")
        table = self.split.frames[rows]
        if (largest := int(table["size"].max())) > MAX_FRAME:
            raise SampleError(
                f"{self.location(sample)}: a frame of {largest} bytes is more than {MAX_FRAME}"
            )
        if (table["offset"].astype(np.int64) + table["size"]).max() > row["size"]:
            raise SampleError(f"{self.location(sample)}: the frame table points outside the file")
        return table

    def _check(
        self, sample: int, wanted: np.ndarray, crcs: np.ndarray, pieces: list[np.ndarray]
    ) -> None:
        for frame, piece, crc in zip(wanted.tolist(), pieces, crcs.tolist(), strict=True):
            if zlib.crc32(piece.data) != crc:
                raise SampleError(f"{self.location(sample)}: frame {frame} is corrupt (CRC32)")
            if (fault := self._fault(sample, piece)) is not None:
                raise SampleError(f"{self.location(sample)}: frame {frame}: {fault}")

    def _fault(self, sample: int, piece: np.ndarray) -> str | None:
        """Why the decoder could crash on a frame whose checksum is right, None if it could not."""
        row = self.split.samples[sample]
        return self._headers.find_fault(piece, int(row["height"]), int(row["width"]))

    def _ranges(
        self, sample: int, offsets: np.ndarray, sizes: np.ndarray, stop: threading.Event
    ) -> list[np.ndarray]:
        """Byte ranges of one video's file; neighbours are fetched by one read."""
        base, pieces = int(self.split.samples["offset"][sample]), []
        for first, last in merged(offsets, sizes, self.gap):
            if stop.is_set():
                raise StoppedError
            start, end = int(offsets[first]), int(offsets[last] + sizes[last])
            block = self.pread(self.split.tar_path(sample), base + start, end - start)
            if len(block) != end - start:
                raise SampleError(
                    f"{self.location(sample)}: short read, {len(block)} of {end - start} bytes"
                )
            for row in range(first, last + 1):
                begin = int(offsets[row]) - start
                piece = block[begin : begin + int(sizes[row])]
                # A piece of a wide read would keep all of it in memory.
                pieces.append(piece.copy() if last > first else piece)
        self.meter.add(videos=1)
        return pieces

    def pread(self, path: Path, offset: int, size: int) -> np.ndarray:
        """Read `size` bytes of a tar, fewer at its end. OSError where the system raises one."""
        descriptor = self._files.acquire(path)
        try:
            block = os.pread(descriptor, size, offset)
        finally:
            self._files.release(path)
        self.meter.add(size=len(block), reads=1)
        return np.frombuffer(block, np.uint8)


def merged(offsets: np.ndarray, sizes: np.ndarray, gap: int) -> Iterable[tuple[int, int]]:
    """First and last row of each read.

    Ranges (offsets, sizes) are ascending; those at most `gap` bytes apart become one read.
    """
    ends = offsets + sizes
    apart = offsets[1:] - ends[:-1] > gap
    first = 0
    for row in range(1, len(offsets) + 1):
        full = row < len(offsets) and ends[row] - offsets[first] > READ_LIMIT
        if row == len(offsets) or apart[row - 1] or full:
            yield first, row - 1
            first = row
