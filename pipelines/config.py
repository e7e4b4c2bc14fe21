"""Settings of the loader that change speed and place, never which pixels come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import LoaderUsageError
from pipelines.plan.planner import OrderConfig

CHOICES = {
    "reader": ("frames", "webdataset"),
    "decode": ("auto", "image", "video", "pyav"),
    "decode_on": ("auto", "cpu", "gpu"),
    "resize": ("auto", "dali", "torch"),
    "stage": ("off", "auto", "all", "lanes"),
}


@dataclass(frozen=True)
class LoaderConfig:
    """How videos are read, decoded and handed over.

    reader: `frames` (plan, pread, decode) or `webdataset` (DALI streams whole videos in a local
    shuffle of 8 x order.window videos; no other order, no decode by PyAV, no gap_kb).
    decode: `image` one JPEG at a time, `video` DALI's video decoder, `pyav` FFmpeg on the CPU.
    decode_on, resize: where and by what; `auto` follows the device. roi_decode: decode only the
    crop's part of a JPEG, None where it pays (CPU). threads: of decoding, 0 for this process's
    share of the cores. prefetch: batches kept ready. gap_kb: neighbouring frames closer than this
    are fetched by one read; None is 0 on a local disk, 256 (one read a snippet) on a network disk
    and 8192 (one read a video) in blocked order. order: see OrderConfig. ahead_mb: memory for what
    is read ahead in blocked order. stage: copy tars to `scratch` first: `all`, those of this
    node's `lanes` (order `local`), or `auto`: all, under SLURM. bad_share: broken videos above
    this share (and above 8) stop the job. watchdog: seconds without a batch before all threads say
    where they are; hang: before the job is stopped, 0 for never.
    """

    reader: str = "frames"
    decode: str = "auto"
    decode_on: str = "auto"
    resize: str = "auto"
    roi_decode: bool | None = None
    threads: int = 0
    read_threads: int = 8
    prefetch: int = 2
    gap_kb: int | None = None
    order: OrderConfig = field(default_factory=OrderConfig)
    ahead_mb: int = 2048
    stage: str = "auto"
    scratch: Path | None = None
    bad_share: float = 0.01
    watchdog: float = 60.0
    hang: float = 1800.0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise LoaderUsageError(
                    f"loader.{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}"
                )
        for name, least in (("threads", 0), ("read_threads", 1), ("prefetch", 1), ("ahead_mb", 1)):
            if getattr(self, name) < least:
                raise LoaderUsageError(
                    f"loader.{name} is {getattr(self, name)}: give {least} or more"
                )
        if self.reader == "webdataset":
            self._check_webdataset()
        if self.stage == "lanes" and self.order.kind != "local":
            raise LoaderUsageError("loader.stage lanes needs loader.order.kind local")
        if not 0 <= self.bad_share <= 1:
            raise LoaderUsageError(f"loader.bad_share is {self.bad_share}: give 0 to 1")
        if self.watchdog <= 0 or self.hang < 0:
            raise LoaderUsageError("loader.watchdog: give more than 0 s; loader.hang: 0 s or more")

    def _check_webdataset(self) -> None:
        """Refuse what DALI's reader would pass over in silence."""
        given = {
            "decode": self.decode == "pyav",
            "order.kind": self.order.kind != "random",
            "gap_kb": self.gap_kb is not None,
            "roi_decode": bool(self.roi_decode),
        }
        for name, odd in given.items():
            if odd:
                raise LoaderUsageError(
                    f"loader.reader webdataset has no choice of loader.{name}: leave it at its "
                    "default, or use loader.reader frames"
                )
