"""Ways to decode, codecs, threads and batch sizes, compared with other libraries in one run.

Every contestant reads the same frames and boxes of the same videos and returns uint8 tensors,
cropped to 224 x 224. Other libraries run as trainers run them: in a torch DataLoader with a worker
process per core, and with the same fast resize.

A block lasts seconds, not a few batches: a pipeline that reads ahead starts a block with batches
that it decoded while another contestant was being timed.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import math
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benches.other_readers import READERS, VideoDataset, dali_files
from benches.report import Report, failure
from benches.shard_sets import extract, jpeg_folders, make_shards
from benches.timing import cores, cpu_seconds
from benches.videos import kind_of_videos, make_videos
from pipelines import AugmentConfig, LoaderConfig, LoaderError, Rank, SamplingConfig, TrainLoader
from pipelines.plan.planner import TrainPlanner
from shards import Split

DALI_FILES = "DALI readers.file, folder of JPEGs"
MEASURED = ("videos_per_s", "cpu_ms", "spread", "stored_kb", "videos_a_block", "blocks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench.py decode`."""
    parser.add_argument("--videos", type=int, default=8, help="different videos of 10 s (8)")
    parser.add_argument(
        "--copies", type=int, default=24, help="copies of each video; a pass reads them all (24)"
    )
    parser.add_argument(
        "--peer-videos",
        type=int,
        default=48,
        help="videos in a pass of the other video decoders, which are slower (48)",
    )
    parser.add_argument("--blocks", type=int, default=3, help="timed blocks of each contestant (3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="least length of a block (4)")
    parser.add_argument("--batch", type=int, nargs="+", default=[16], help="batch sizes (16)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[0], help="decoding threads; 0 for all cores (0)"
    )
    parser.add_argument(
        "--frames", type=int, default=4, help="frames of each of the 4 snippets (4)"
    )
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--folder", type=Path, help="keep the videos here (default: a temporary folder)"
    )
    parser.add_argument("--plot", type=Path, help="write a bar chart here (PNG)")
    parser.add_argument(
        "--vp9", action="store_true", help="also measure vp9, which is slow to encode"
    )
    parser.add_argument("--only", default="", help="only contestants whose name contains this")


def run(args: argparse.Namespace, report: Report) -> None:
    """Measure all contestants.

    cpu_ms, the CPU time per video in all processes, varies less than videos/s on a busy machine.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        videos = make_videos(folder / "videos", args.videos)
        contest = Contest(args, folder, videos)
        contest.add_own()
        contest.add_others()
        report.environment["clips"] = kind_of_videos()
        _measure(contest, args, report)
        contest.close()
    if args.plot:
        plot(report, args.plot)


@dataclass
class Contestant:
    """One way to read videos, and its times.

    Attributes:
        call: makes one pass over `videos` videos.
        stored: mean bytes of a stored video.
        passes: passes in a block.
        blocks: (seconds, CPU seconds) per video in each block.
    """

    name: str
    call: Callable[[], None]
    videos: int
    stored: float
    passes: int = 1
    blocks: list[tuple[float, float]] = field(default_factory=list)

    def warm_up(self, seconds: float) -> None:
        """Make one pass, and set `passes` so that a block lasts `seconds`."""
        start = time.perf_counter()
        self.call()
        self.passes = math.ceil(seconds / (time.perf_counter() - start))

    def time_block(self) -> None:
        """Make the passes of a block and record its times."""
        start, cpu = time.perf_counter(), cpu_seconds()
        for _ in range(self.passes):
            self.call()
        count = self.passes * self.videos
        self.blocks.append(((time.perf_counter() - start) / count, (cpu_seconds() - cpu) / count))

    def row(self) -> dict[str, Any]:
        """The medians over the blocks so far."""
        walls, cpus = zip(*self.blocks, strict=True)
        wall = statistics.median(walls)
        figures = (1 / wall, 1e3 * statistics.median(cpus), (max(walls) - min(walls)) / wall,
                   self.stored / 1e3, self.passes * self.videos, len(walls))  # fmt: skip
        return {"contestant": self.name} | dict(zip(MEASURED, figures, strict=True))


class Contest:
    """All contestants, and the names of those that cannot run here."""

    def __init__(self, args: argparse.Namespace, folder: Path, videos: list[Path]) -> None:
        self.args, self.folder, self.videos = args, folder, videos
        self.contestants: list[Contestant] = []
        self.absent: list[str] = []
        self.failed: dict[str, str] = {}
        self._loaders: list[TrainLoader] = []
        self.sampling = SamplingConfig(frames=args.frames)
        self.mjpeg = make_shards(folder, videos, "mjpeg", args.copies)

    def add(self, name: str, call: Callable[[], None], videos: int, stored: float) -> None:
        if self.args.only in name:
            self.contestants.append(Contestant(name, call, videos, stored))

    def add_own(self) -> None:
        """Add every way of this package that can run on this machine."""
        gpu = self.args.device != "cpu"
        h264 = make_shards(self.folder, self.videos, "h264", self.args.copies, gop=8)
        vp9 = self.args.vp9 and make_shards(
            self.folder, self.videos, "vp9", self.args.copies, gop=8
        )
        for batch, threads in itertools.product(self.args.batch, self.args.threads):
            tag = f"batch {batch}, {threads or cores()} threads"
            self._add_own(f"ours: JPEG frames, {tag}", self.mjpeg, batch, threads=threads)
            self._add_own(
                f"ours: JPEG frames, DALI resize, {tag}", self.mjpeg, batch, threads=threads,
                resize="dali",
            )  # fmt: skip
            if gpu:
                self._add_own(
                    f"ours: JPEG frames decoded on the CPU, {tag}", self.mjpeg, batch,
                    threads=threads, decode_on="cpu",
                )  # fmt: skip
            decode = "video" if gpu else "pyav"
            self._add_own(f"ours: h264 GOP 8, {decode}, {tag}", h264, batch, threads=threads)
            if vp9:
                self._add_own(f"ours: vp9 GOP 8, DALI video, {tag}", vp9, batch, threads=threads)
        batch, threads = self.args.batch[0], self.args.threads[0]
        self._add_own("ours: mjpeg, DALI video", self.mjpeg, batch, threads=threads, decode="video")
        self._add_own("ours: mjpeg, reader webdataset", self.mjpeg, batch, threads=threads,
                   reader="webdataset")  # fmt: skip
        if not gpu:
            self.absent.append("ours: JPEG frames on a GPU (no GPU here)")

    def _add_own(self, name: str, split: Split, batch_size: int, **settings: Any) -> None:
        try:
            loader = TrainLoader(
                split, self.sampling, AugmentConfig(), LoaderConfig(read_threads=4, **settings),
                seed=0, batch_size=batch_size, rank=Rank(device=self.args.device),
            )  # fmt: skip
        except LoaderError as error:
            self.fail(name, error)
            return
        self._loaders.append(loader)
        epochs = itertools.count()

        def call() -> None:
            for batch in loader.epoch(next(epochs)):
                assert batch.clips.shape[-2] == 224
            if self.args.device != "cpu":
                torch.cuda.synchronize()

        # Training drops the tail of an epoch.
        self.add(name, call, len(loader) * batch_size, float(split.samples["size"].mean()))

    def add_others(self) -> None:
        """Add other libraries: on the original files, on files of short GOPs, on JPEG files."""
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
                self._add_other(f"{reader}, {label}", reader, module, items, plan)
        stored = float(np.mean([sum(p.stat().st_size for p in paths) for paths in folders]))
        count, name = -(-len(folders) // self.args.batch[0]) * self.args.batch[0], DALI_FILES
        try:
            call = dali_files(folders, plan, self.args)
        except Exception as error:  # of DALI's graph, such as a GPU out of memory
            self.fail(name, error)
            return
        self.add(name, call, count, stored)

    def _add_other(self, name: str, reader: str, module: str, items: list[Any], plan: Any) -> None:
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            self.absent.append(f"{name}: {module} not usable ({type(error).__name__})")
            return
        items = items if module == "PIL" else items[: self.args.peer_videos]
        data = VideoDataset(reader, items, plan)
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

    def fail(self, name: str, error: Exception) -> None:
        """Note that a contestant cannot run, or raised."""
        traceback.print_exc()
        self.failed[name] = failure(error)

    def rows(self) -> list[dict[str, Any]]:
        """The fastest first, then those that failed, then those that cannot run here."""
        rows = [contestant.row() for contestant in self.contestants if contestant.blocks]
        rows.sort(key=lambda row: -row["videos_per_s"])
        nothing = dict.fromkeys(MEASURED)
        rows += [{"contestant": n, **nothing, "failed": why} for n, why in self.failed.items()]
        return rows + [{"contestant": name, **nothing} for name in self.absent]

    def close(self) -> None:
        for loader in self._loaders:
            loader.close()


def _measure(contest: Contest, args: argparse.Namespace, report: Report) -> None:
    """Time all contestants in alternating blocks, each warmed up before its first one.

    The rows are written after each block, so that an interrupted run keeps them. One that raises
    gets a row that says so, and the others go on.
    """
    for number in range(args.blocks):
        for contestant in list(contest.contestants):
            try:
                if not number:
                    contestant.warm_up(args.seconds)
                contestant.time_block()
            except Exception as error:
                contest.fail(contestant.name, error)
                contest.contestants.remove(contestant)
            report.replace(contest.rows())
    report.failures += len(contest.failed)


def plot(report: Report, path: Path) -> None:
    """Draw videos/s as bars, this package in one colour and other libraries in another."""
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
