"""Decode strategies, codecs, threads and batch sizes beside the peers, in one run.

Every contestant takes the same U x T frames and the same boxes of the same videos and gives
cropped uint8 224 x 224 in torch. Peers run as trainers run them: a torch DataLoader with as many
worker processes as there are cores, and the same fast resize as ours.

A block runs for seconds, not for a few batches: a pipeline that reads ahead starts a block with
work that it did while another contestant was being timed.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benches.clips import (
    cores,
    cpu_seconds,
    extract,
    jpeg_folders,
    kind_of_clips,
    make_shards,
    make_videos,
)
from benches.common import Report
from benches.peers import READERS, PeerVideos, dali_files
from pipelines import AugmentConfig, LoaderConfig, SamplingConfig, TrainLoader
from pipelines.plan.planner import TrainPlanner
from shards import Split

MEASURED = ("videos_per_s", "cpu_ms", "spread", "stored_kb", "videos_a_block", "blocks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench.py decode`."""
    parser.add_argument("--videos", type=int, default=8, help="distinct clips of 10 s")
    parser.add_argument("--copies", type=int, default=24, help="of each: one pass decodes all")
    parser.add_argument(
        "--peer-videos", type=int, default=48, help="a pass of peers that decode video"
    )
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a block at least, in passes")
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--threads", type=int, nargs="+", default=[0], help="0: all cores")
    parser.add_argument("--frames", type=int, default=4, help="T; U is 4")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="keep the files here (default: a scratch one)")
    parser.add_argument("--plot", type=Path, help="write a bar chart here (PNG)")
    parser.add_argument("--vp9", action="store_true", help="also vp9, which is slow to encode")
    parser.add_argument("--only", default="", help="contestants whose name holds this")


def run(args: argparse.Namespace, report: Report) -> None:
    """Measure and report. cpu_ms, the processor time of a video in all processes, bears a busy
    machine better than videos/s does."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        videos = make_videos(folder / "videos", args.videos)
        contest = _Contest(args, folder, videos)
        contest.ours()
        contest.peers()
        report.environment["clips"] = kind_of_clips()
        _measure(contest, args, report)
        contest.close()
    if args.plot:
        plot(report, args.plot)


@dataclass
class _Contestant:
    """call: one pass over `videos` videos; stored: bytes of a video; blocks: seconds and processor
    seconds of a video."""

    name: str
    call: Callable[[], None]
    videos: int
    stored: float
    passes: int = 1
    blocks: list[tuple[float, float]] = field(default_factory=list)

    def warm_up(self, seconds: float) -> None:
        """Run once, and find how many passes fill a block."""
        start = time.perf_counter()
        self.call()
        self.passes = math.ceil(seconds / (time.perf_counter() - start))

    def block(self) -> None:
        start, cpu = time.perf_counter(), cpu_seconds()
        for _ in range(self.passes):
            self.call()
        count = self.passes * self.videos
        self.blocks.append(((time.perf_counter() - start) / count, (cpu_seconds() - cpu) / count))

    def row(self) -> dict[str, Any]:
        """The medians so far."""
        walls, cpus = zip(*self.blocks, strict=True)
        wall = statistics.median(walls)
        figures = (1 / wall, 1e3 * statistics.median(cpus), (max(walls) - min(walls)) / wall,
                   self.stored / 1e3, self.passes * self.videos, len(walls))  # fmt: skip
        return {"contestant": self.name} | dict(zip(MEASURED, figures, strict=True))


class _Contest:
    """The contestants, and the peers that cannot take part."""

    def __init__(self, args: argparse.Namespace, folder: Path, videos: list[Path]) -> None:
        self.args, self.folder, self.videos = args, folder, videos
        self.contestants: list[_Contestant] = []
        self.absent: list[str] = []
        self._loaders: list[TrainLoader] = []
        self.sampling = SamplingConfig(frames=args.frames)
        self.mjpeg = make_shards(folder, videos, "mjpeg", args.copies)

    def add(self, name: str, call: Callable[[], None], videos: int, stored: float) -> None:
        if self.args.only in name:
            self.contestants.append(_Contestant(name, call, videos, stored))

    def ours(self) -> None:
        """Every strategy that this machine can run."""
        gpu = self.args.device != "cpu"
        short = {"gop": 8}
        h264 = make_shards(self.folder, self.videos, "h264", self.args.copies, **short)
        vp9 = self.args.vp9 and make_shards(
            self.folder, self.videos, "vp9", self.args.copies, **short
        )
        for batch, threads in itertools.product(self.args.batch, self.args.threads):
            tag = f"batch {batch}, {threads or cores()} threads"
            self._ours(f"ours: JPEG frames, {tag}", self.mjpeg, batch, threads=threads)
            self._ours(
                f"ours: JPEG frames, DALI resize, {tag}", self.mjpeg, batch, threads=threads,
                resize="dali",
            )  # fmt: skip
            if gpu:
                self._ours(
                    f"ours: JPEG frames decoded on the CPU, {tag}", self.mjpeg, batch,
                    threads=threads, decode_on="cpu",
                )  # fmt: skip
            decode = "video" if gpu else "pyav"
            self._ours(f"ours: h264 GOP 8, {decode}, {tag}", h264, batch, threads=threads)
            if vp9:
                self._ours(f"ours: vp9 GOP 8, DALI video, {tag}", vp9, batch, threads=threads)
        batch, threads = self.args.batch[0], self.args.threads[0]
        self._ours("ours: mjpeg, DALI video", self.mjpeg, batch, threads=threads, decode="video")
        self._ours("ours: mjpeg, reader webdataset", self.mjpeg, batch, threads=threads,
                   reader="webdataset")  # fmt: skip
        if not gpu:
            self.absent.append("ours: JPEG frames on a GPU (no GPU here)")

    def _ours(self, name: str, split: Split, batch_size: int, **settings: Any) -> None:
        loader = TrainLoader(
            split, self.sampling, AugmentConfig(), LoaderConfig(read_threads=4, **settings),
            seed=0, batch_size=batch_size, device=self.args.device,
        )  # fmt: skip
        self._loaders.append(loader)
        epochs = itertools.count()

        def call() -> None:
            for batch in loader.epoch(next(epochs)):
                assert batch.clips.shape[-2] == 224
            if self.args.device != "cpu":
                torch.cuda.synchronize()

        # Training drops the tail of an epoch.
        self.add(name, call, len(loader) * batch_size, float(split.samples["size"].mean()))

    def peers(self) -> None:
        """Other decoders on the original files and on short-GOP ones, and folders of JPEGs."""
        planner = TrainPlanner(self.mjpeg, self.sampling, AugmentConfig(), seed=0)
        keys = [self.mjpeg.key(sample) for sample in range(len(self.mjpeg))]
        plan = planner.plan(0, np.arange(len(keys)), np.zeros(len(keys), int))
        originals = [self.folder / "videos" / f"{key.rsplit('-', 1)[0]}.mp4" for key in keys]
        gop = make_shards(self.folder, self.videos, "h264", 1, gop=8)
        paths = extract(gop, self.folder / "gop8")
        by_key = {path.stem.rsplit("-", 1)[0]: path for path in paths}
        short = [by_key[key.rsplit("-", 1)[0]] for key in keys]
        folders = jpeg_folders(self.mjpeg, self.folder / "jpegs")
        for reader, (module, _) in READERS.items():
            sets = [("original H.264", originals), ("H.264 GOP 8", short)]
            if module == "PIL":
                sets = [("folder of JPEGs", folders)]
            for label, items in sets:
                self._peer(f"{reader}, {label}", reader, module, items, plan)
        stored = float(np.mean([sum(p.stat().st_size for p in paths) for paths in folders]))
        call = dali_files(folders, plan, self.args)
        count = -(-len(folders) // self.args.batch[0]) * self.args.batch[0]
        self.add("DALI readers.file, folder of JPEGs", call, count, stored)

    def _peer(self, name: str, reader: str, module: str, items: list[Any], plan: Any) -> None:
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            self.absent.append(f"{name}: {module} not usable ({type(error).__name__})")
            return
        items = items if module == "PIL" else items[: self.args.peer_videos]
        data = PeerVideos(reader, items, plan)
        loader = torch.utils.data.DataLoader(
            data, batch_size=self.args.batch[0], num_workers=cores(), persistent_workers=True
        )

        def call() -> None:
            for clips in loader:
                assert clips.shape[-2] == 224

        sizes = [
            sum(p.stat().st_size for p in item) if isinstance(item, list) else item.stat().st_size
            for item in items
        ]
        self.add(name, call, len(items), float(np.mean(sizes)))

    def close(self) -> None:
        for loader in self._loaders:
            loader.close()


def _measure(contest: _Contest, args: argparse.Namespace, report: Report) -> None:
    absent = [{"contestant": name} | dict.fromkeys(MEASURED) for name in contest.absent]
    for contestant in contest.contestants:
        contestant.warm_up(args.seconds)
    for _ in range(args.blocks):
        for contestant in contest.contestants:
            contestant.block()
        # After each round, so that a run cut short keeps the rounds before.
        rows = [contestant.row() for contestant in contest.contestants]
        report.replace(sorted(rows, key=lambda row: -row["videos_per_s"]) + absent)


def plot(report: Report, path: Path) -> None:
    """Bars of videos/s, ours and the peers' in two colours."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in report.rows if row["videos_per_s"]][::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.35 * len(rows) + 1.2))
    colours = ["#1f77b4" if row["contestant"].startswith("ours") else "#999999" for row in rows]
    bars = axes.barh(
        [row["contestant"] for row in rows], [row["videos_per_s"] for row in rows], color=colours
    )
    axes.bar_label(bars, fmt="%.0f", padding=3)
    cores_used = report.environment["cores"]
    axes.set_xlabel(f"videos/s on {cores_used} cores: 10 s clips, 4 snippets, cropped to 224 x 224")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
