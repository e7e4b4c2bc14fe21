"""Settings of a shard set, and the sources that it is made of."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from dsanet.errors import check_choices, require
from shards.errors import ShardUsageError

GopCodec = Literal["h264", "hevc", "vp9"]
Codec = Literal["mjpeg", GopCodec]
GOP_CODECS: tuple[GopCodec, ...] = get_args(GopCodec)
CODECS: tuple[Codec, ...] = get_args(Codec)
# What can become of a source: only "ok" is in the set; "deferred" is tried again by a second run.
Status = Literal["ok", "missing", "refused", "deferred"]
STATUSES: tuple[Status, ...] = get_args(Status)
# mjpeg: FFmpeg's quantiser scale, 2 (best) to 31; the others: constant rate factor.
DEFAULT_QUALITY: dict[Codec, int] = {"mjpeg": 6, "h264": 23, "hevc": 26, "vp9": 33}
# The best and the worst quality of each codec.
QUALITY_RANGE: dict[Codec, tuple[int, int]] = {
    "mjpeg": (2, 31),
    "h264": (1, 51),
    "hevc": (1, 51),
    "vp9": (1, 63),
}
MAX_PIXELS = 64_000_000  # of a frame, in a source and in a set
# Settings that change how a set is built but never its bytes.
OPERATIONAL = ("workers", "cpu_seconds", "memory_mb")


@dataclass(frozen=True)
class Source:
    """A video that becomes one sample.

    Attributes:
        path: a video file, or a folder of JPEG frames.
        label: index of the class; -1 for none.
        key: name of the sample in the set: letters, digits, "-" and "_".
        name: the path as the list has it. The set stores no absolute path, so that two machines
            write the same bytes.
        labels: all labels, if there are several.
        start, end: the segment of the video to cut out, in seconds; None for the whole video.
        segments: labelled parts (start, end, label) of a sample with several.
        fps: frame rate of a folder of frames.
        if_longer: cut only if the file is longer than the segment, which it may be already.
        frames: first frame, from 0, and number of frames of a folder of frames; () for all.
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
    frames: tuple[int, ...] = ()

    @property
    def all_labels(self) -> tuple[int, ...]:
        """All labels of the sample; () for an unlabelled one."""
        return self.labels or ((self.label,) if self.label >= 0 else ())

    def to_json(self) -> dict[str, Any]:
        """Return the source as a JSON object."""
        data = asdict(self) | {"path": str(self.path), "name": self.name or self.path.name}
        if not self.frames:  # the fingerprints of sets depend on this object
            del data["frames"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Source:
        """Return the source that `to_json` wrote."""
        converted = {
            "path": Path(data["path"]),
            "labels": tuple(data["labels"]),
            "frames": tuple(data.get("frames", ())),
            "segments": tuple((start, end, label) for start, end, label in data["segments"]),
        }
        return cls(**(data | converted))


@dataclass(frozen=True)
class ShardSettings:
    """How videos become samples.

    Attributes:
        codec: of the stored frames.
        short_side: largest short side of a frame in pixels; nothing is enlarged.
        fps: frames per second of the samples; "native" for those of each video.
        quality: in the codec's own scale; None for the codec's default.
        gop: frames in a closed GOP of h264, hevc and vp9.
        copy: store the packets of a video that already has the requested format.
        keep_partial: keep the undamaged beginning of a video if it has this many frames; 0: never.
        max_seconds: longest sample.
        seed: of the order of the samples.
        tar_samples: samples in a tar; None: by the number of sources.
        workers: worker processes; 0: one for each core.
        cpu_seconds: CPU time that one source may take.
        memory_mb: address space of a worker.

    Raises:
        ShardUsageError: if a value is out of range.
    """

    codec: Codec = "mjpeg"
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
        check_choices(self, "", ShardUsageError)
        self._require(16 <= self.short_side <= 4096, "short_side", "be between 16 and 4096")
        if self.codec in GOP_CODECS:
            must = f"be a multiple of 16 for {self.codec}"
            self._require(self.short_side % 16 == 0, "short_side", must)
        best, worst = QUALITY_RANGE[self.codec]
        in_range = self.quality is None or best <= self.quality <= worst
        self._require(in_range, "quality", f"be between {best} and {worst} for {self.codec}")
        self._require(1 <= self.gop <= 255, "gop", "be between 1 and 255")
        self._require(self.keep_partial >= 0, "keep_partial", "be at least 0")
        self._require(self.max_seconds > 0, "max_seconds", "be greater than 0")
        has_samples = self.tar_samples is None or self.tar_samples >= 1
        self._require(has_samples, "tar_samples", "be at least 1")
        self._require(self.workers >= 0, "workers", "be at least 0")
        self._require(self.cpu_seconds >= 1, "cpu_seconds", "be at least 1")
        self._require(self.memory_mb >= 512, "memory_mb", "be at least 512")
        rate = _parse_rate(self.fps)
        valid = self.fps == "native" or (rate is not None and 0 < rate <= 240)
        self._require(valid, "fps", 'be "native" or a rate above 0 and up to 240')

    def _require(self, condition: bool, name: str, must: str) -> None:
        require(condition, name, must, getattr(self, name), ShardUsageError)

    @property
    def rate(self) -> Fraction | None:
        """Frames per second of the samples, None for those of each video."""
        return _parse_rate(self.fps)

    @property
    def effective_quality(self) -> int:
        """The quality in the codec's own scale."""
        return DEFAULT_QUALITY[self.codec] if self.quality is None else self.quality

    @property
    def effective_workers(self) -> int:
        """Number of worker processes to start."""
        return self.workers or len(os.sched_getaffinity(0))

    def recorded(self) -> dict[str, Any]:
        """Return the settings that decide the bytes of the set, as a JSON object."""
        names = [field.name for field in fields(self) if field.name not in OPERATIONAL]
        settings = {name: getattr(self, name) for name in names}
        return settings | {"quality": self.effective_quality}


def _parse_rate(text: str) -> Fraction | None:
    """Return a rate such as "30" or "30000/1001", or None if `text` is not a number."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
