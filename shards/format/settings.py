"""What a shard set is asked to be, and what goes into it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from shards.errors import ShardUsageError

GOP_CODECS = ("h264", "hevc", "vp9")
CODECS = ("mjpeg", *GOP_CODECS)
# mjpeg: FFmpeg's quantiser scale, 2 (best) to 31; the others: constant rate factor.
DEFAULT_QUALITY = {"mjpeg": 6, "h264": 23, "hevc": 26, "vp9": 33}
QUALITY = {"mjpeg": (2, 31), "h264": (1, 51), "hevc": (1, 51), "vp9": (1, 63)}  # best, worst
# Settings that change how fast or how patiently a set is built, never its bytes.
OPERATIONAL = ("workers", "cpu_seconds", "memory_mb")


@dataclass(frozen=True)
class Source:
    """One sample to make: a video file (or a folder of JPEG frames), its labels and its key.

    `start` and `end` (seconds) cut a segment out of an untrimmed video; `segments` records the
    labelled parts (start, end, label) of a sample that holds more than one; with `if_longer` the
    file may be the segment already, and is cut only if it proves longer. `fps` is the rate of a
    folder of frames. `name` is the path as the list gives it: the set never stores absolute
    paths, so that two machines write the same bytes.
    """

    path: Path
    label: int
    key: str
    name: str = ""
    labels: tuple[int, ...] = ()
    start: float | None = None
    end: float | None = None
    segments: tuple[tuple[float, float, int], ...] = ()
    fps: str = ""
    if_longer: bool = False

    @property
    def all_labels(self) -> tuple[int, ...]:
        """Every label of the sample, the first one first; empty for an unlabelled sample."""
        return self.labels or ((self.label,) if self.label >= 0 else ())

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes the same source."""
        return asdict(self) | {"path": str(self.path), "name": self.name or self.path.name}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Source:
        """The source that `to_json` wrote."""
        segments = tuple((a, b, label) for a, b, label in data["segments"])
        changed = {"path": Path(data["path"]), "labels": tuple(data["labels"])}
        return cls(**(data | changed | {"segments": segments}))


@dataclass(frozen=True)
class ShardSettings:
    """How sources become samples.

    `short_side` in pixels is an upper bound (nothing is enlarged); `fps` is "native" or a rate;
    `quality` None takes the codec's default; `gop` is the frames per closed GOP of h264, hevc and
    vp9; `copy` keeps the packets of an input that already is what is asked; `keep_partial` > 0
    keeps the good beginning of a damaged video that has at least so many frames;
    `tar_samples` None follows from the number of sources.
    `workers` 0 takes every core; `cpu_seconds` and `memory_mb` bound one source in one worker.

    Raises ShardUsageError for values outside their range.
    """

    codec: str = "mjpeg"
    short_side: int = 256
    fps: str = "native"
    quality: int | None = None
    gop: int = 4
    copy: bool = False
    keep_partial: int = 0
    max_seconds: float = 1200.0
    seed: int = 0
    tar_samples: int | None = None
    workers: int = 0
    cpu_seconds: int = 300
    memory_mb: int = 2048

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ShardUsageError(f"codec {self.codec!r}: choose one of {', '.join(CODECS)}")
        self._need(16 <= self.short_side <= 4096, "short_side", "16 to 4096 pixels")
        self._need(1 <= self.gop <= 255, "gop", "1 to 255 frames")
        low, high = QUALITY[self.codec]
        good = self.quality is None or low <= self.quality <= high
        self._need(good, "quality", f"{low} to {high} for {self.codec}")
        self._need(self.keep_partial >= 0, "keep_partial", "0 or a number of frames")
        self._need(self.max_seconds > 0, "max_seconds", "more than 0 seconds")
        self._need(self.tar_samples is None or self.tar_samples > 0, "tar_samples", "1 or more")
        self._need(self.workers >= 0, "workers", "0 (every core) or more")
        self._need(self.cpu_seconds > 0, "cpu_seconds", "1 or more seconds")
        self._need(self.memory_mb >= 512, "memory_mb", "512 or more")
        if self.codec in GOP_CODECS:
            self._need(self.short_side % 16 == 0, "short_side", f"multiples of 16 for {self.codec}")
        self._need(self.rate is None or 0 < self.rate <= 240, "fps", '"native" or up to 240')

    def _need(self, holds: bool, name: str, allowed: str) -> None:
        if not holds:
            raise ShardUsageError(f"{name} = {getattr(self, name)!r}: allowed are {allowed}")

    @property
    def rate(self) -> Fraction | None:
        """The asked frame rate, None for the source's own."""
        if self.fps == "native":
            return None
        try:
            return Fraction(self.fps)
        except (ValueError, ZeroDivisionError):
            raise ShardUsageError(
                f'fps = {self.fps!r}: allowed are "native" or a rate such as 30 or 30000/1001'
            ) from None

    @property
    def effective_quality(self) -> int:
        """The quality in the codec's own scale."""
        return DEFAULT_QUALITY[self.codec] if self.quality is None else self.quality

    @property
    def effective_workers(self) -> int:
        """Worker processes to start."""
        return self.workers or len(os.sched_getaffinity(0))

    def recorded(self) -> dict[str, Any]:
        """The settings that decide the bytes, as a JSON object: what a set is known by."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in OPERATIONAL}
        return kept | {"quality": self.effective_quality}
