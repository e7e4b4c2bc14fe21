"""Settings of the loader that change its speed and its use of the machine, never the samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dsanet.errors import check_choices, require
from pipelines.errors import LoaderUsageError
from pipelines.plan.planner import OrderConfig

READ_THREADS, PREFETCH = 8, 2  # where the settings leave them open


@dataclass(frozen=True)
class RemoteConfig:
    """Limits of what is fetched from the URL of a set.

    Attributes:
        idle: seconds without a byte after which a fetch is given up.
        total: seconds that one file may take.
        redirects: whether http may lead to `any` other server, or to the `same_host` only.
    """

    idle: float = 60.0
    total: float = 3600.0
    redirects: Literal["same_host", "any"] = "same_host"

    def __post_init__(self) -> None:
        check_choices(self, "loader.remote.", LoaderUsageError)
        for name in ("idle", "total"):
            value = getattr(self, name)
            _require(value > 0, f"remote.{name}", "be more than 0", value)


@dataclass(frozen=True)
class LoaderConfig:
    """How videos are read, decoded and passed to the training loop.

    Attributes:
        reader: `frames` reads just the frames of the plan; `webdataset` streams whole videos with
            DALI in a local shuffle of 8 x order.window videos (no other order, no PyAV, no gap_kb).
        decode: `image` decodes one JPEG at a time, `video` uses DALI's video decoder, `pyav` uses
            FFmpeg on the CPU; `auto` follows codec and device.
        decode_on: where videos are decoded; `auto` follows the device.
        resize: what resizes the crops: DALI's graph, or torch when decoding on the CPU; `auto`
            follows the device.
        roi_decode: decode only the cropped region of a JPEG; null: only on a CPU, where it is
            faster.
        threads: decoding threads; 0: the share of the cores that belongs to this process, at most
            16, or on a GPU, whose decoders they only drive, at most 4 for JPEGs and 8 for video.
        hw_load: share of the JPEGs that the hardware decoder of a GPU takes, from 0 to 1; null:
            DALI's default.
        resize_batch: frames that DALI resizes in one kernel; null: DALI's default.
        read_threads: threads that read files, and that copy tars to `scratch`; null: 8.
        prefetch: batches kept ready; null: 2.
        tune: before training, try other values of the settings above that are left at their
            defaults (threads, hw_load, resize_batch, read_threads, prefetch, decode_on), and take
            the fastest: `auto` on a GPU, with what an earlier start has found; `again` on any
            device, anew; or `off`.
        gap_kb: frames of a video closer than this are fetched by one read. null: 0 on a local disk,
            256 (one read a snippet) on a network disk, 8192 (one read a video) in blocked order.
        order: order of the videos in an epoch.
        ahead_mb: memory for what is read ahead in blocked order.
        stage: copy tars to `scratch` before reading: `all` of them, those of this node's `lanes`
            (order.kind local), or `auto`: all under SLURM, else none.
        scratch: folder on a local disk for staged tars; null: SLURM_TMPDIR.
        remote: limits of fetching a set from a URL.
        bad_share: share of bad videos (beyond 8 videos) at which the job stops.
        watchdog: seconds without a batch after which the stacks of all threads are printed.
        hang: seconds without a batch, or without a byte of tars that are copied, after which the
            job is stopped; 0: never.
    """

    reader: Literal["frames", "webdataset"] = "frames"
    decode: Literal["auto", "image", "video", "pyav"] = "auto"
    decode_on: Literal["auto", "cpu", "gpu"] = "auto"
    resize: Literal["auto", "dali", "torch"] = "auto"
    roi_decode: bool | None = None
    threads: int = 0
    hw_load: float | None = None
    resize_batch: int | None = None
    read_threads: int | None = None
    prefetch: int | None = None
    tune: Literal["auto", "off", "again"] = "auto"
    gap_kb: int | None = None
    order: OrderConfig = field(default_factory=OrderConfig)
    ahead_mb: int = 2048
    stage: Literal["off", "auto", "all", "lanes"] = "auto"
    scratch: Path | None = None
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    bad_share: float = 0.01
    watchdog: float = 60.0
    hang: float = 1800.0

    def __post_init__(self) -> None:
        check_choices(self, "loader.", LoaderUsageError)
        for name, least in (("threads", 0), ("ahead_mb", 1)):
            value = getattr(self, name)
            _require(value >= least, name, f"be at least {least}", value)
        for name in ("read_threads", "prefetch", "resize_batch"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, "be at least 1, or null", value)
        load = self.hw_load
        _require(load is None or 0 <= load <= 1, "hw_load", "be in [0, 1], or null", load)
        _require(0 <= self.bad_share <= 1, "bad_share", "be in [0, 1]", self.bad_share)
        _require(self.watchdog > 0, "watchdog", "be more than 0", self.watchdog)
        _require(self.hang >= 0, "hang", "be at least 0", self.hang)
        kind = self.order.kind
        if self.stage == "lanes":
            _require(kind == "local", "order.kind", "be local with loader.stage lanes", kind)
        if self.reader == "webdataset":
            self._check_webdataset()

    @property
    def reading_threads(self) -> int:
        """`read_threads`, or its default."""
        return READ_THREADS if self.read_threads is None else self.read_threads

    @property
    def batches_ready(self) -> int:
        """`prefetch`, or its default."""
        return PREFETCH if self.prefetch is None else self.prefetch

    def _check_webdataset(self) -> None:
        """Refuse settings that DALI's webdataset reader would ignore."""
        order = self.order.kind
        for supported, name, must, value in (
            (self.decode != "pyav", "decode", "not be pyav", self.decode),
            (order == "random", "order.kind", "be random", order),
            (self.gap_kb is None, "gap_kb", "be null", self.gap_kb),
            (not self.roi_decode, "roi_decode", "be null or false", self.roi_decode),
        ):
            _require(supported, name, f"{must} with loader.reader webdataset", value)


def _require(condition: bool, name: str, must: str, value: object) -> None:
    require(condition, f"loader.{name}", must, value, LoaderUsageError)
