"""The loader alone, stage by stage, and how much it slows a training loop in the same process."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benches.report import Report
from benches.shard_sets import make_shards, make_tiny
from benches.timing import cores, halves_of_cores
from benches.videos import kind_of_videos, make_videos
from pipelines import AugmentConfig, LoaderConfig, OrderConfig, Rank, SamplingConfig, TrainLoader
from shards import Split, open_split

STAGES = ("plan", "read", "decode", "augment", "handover")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench.py loader`."""
    parser.add_argument("--data", type=Path, help="shard set (default: one is made)")
    parser.add_argument("--split", default="train", help="split of the shard set (train)")
    parser.add_argument("--batch", type=int, default=16, help="videos in a batch (16)")
    parser.add_argument(
        "--threads", type=int, default=0, help="decoding threads; 0 for all cores (0)"
    )
    parser.add_argument("--read-threads", type=int, default=4, help="reading threads (4)")
    parser.add_argument(
        "--frames", type=int, default=4, help="frames of each of the 4 snippets (4)"
    )
    parser.add_argument("--size", type=int, default=224, help="side of a crop in pixels (224)")
    parser.add_argument("--order", choices=("random", "blocked", "local"), default="random")
    parser.add_argument("--reader", choices=("frames", "webdataset"), default="frames")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement (6)")
    parser.add_argument(
        "--cold", action="store_true", help="first drop the tars from the page cache"
    )


def run(args: argparse.Namespace, report: Report) -> None:
    """Measure the loader as a whole, each stage, and the loader beside a training loop."""
    with tempfile.TemporaryDirectory() as folder:
        split = _split(args, Path(folder))
        report.environment["clips"] = "given" if args.data else kind_of_videos()
        measurements: dict[str, Callable[[Split, argparse.Namespace, Report], None]] = {
            "loader": _whole, "stages": _stages, "tiny videos": _overhead,
            "beside training": _beside_training,
        }  # fmt: skip
        if args.reader != "frames":
            del measurements["stages"]
        for what, measure in measurements.items():
            report.attempt({"what": what}, measure, split, args, report)


def _overhead(_: Split, args: argparse.Namespace, report: Report) -> None:
    """Time tiny videos, whose decoding costs almost nothing: an upper bound set by Python."""
    with tempfile.TemporaryDirectory() as folder:
        _time_tiny(make_tiny(Path(folder) / "tiny"), args, report)


def _time_tiny(split: Split, args: argparse.Namespace, report: Report) -> None:
    augment = AugmentConfig(size=32, short_sides=(48, 48))
    with _OpenLoader(split, args, augment) as loader:
        for _ in loader.epoch(0):
            pass
        videos, start, cpu = 0, time.perf_counter(), time.process_time()
        for batch in _epochs(loader, args.seconds):
            videos += len(batch.ids)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    report.add(what="videos of 48 x 48 pixels", value=videos / wall, unit="per s")
    report.add(what="their processor time", value=1e3 * cpu / videos, unit="ms per video")


def _split(args: argparse.Namespace, folder: Path) -> Split:
    if args.data is not None:
        return open_split(args.data, args.split)
    return make_shards(folder, make_videos(folder / "videos", 8), "mjpeg", copies=8)


class _OpenLoader:
    """A loader that is open for the length of a `with`."""

    def __init__(
        self,
        split: Split,
        args: argparse.Namespace,
        augment: AugmentConfig | None = None,
        **changes: Any,
    ) -> None:
        settings = {"threads": args.threads, "read_threads": args.read_threads,
                    "order": OrderConfig(args.order), "reader": args.reader} | changes  # fmt: skip
        self.loader = TrainLoader(
            split, SamplingConfig(frames=args.frames), augment or AugmentConfig(size=args.size),
            LoaderConfig(**settings), seed=0, batch_size=min(args.batch, len(split)),
            rank=Rank(device=args.device),
        )  # fmt: skip

    def __enter__(self) -> TrainLoader:
        return self.loader

    def __exit__(self, *_: object) -> None:
        self.loader.close()


def _epochs(loader: TrainLoader, seconds: float) -> Any:
    """Batches for about `seconds`, from as many epochs as that takes."""
    end, epoch = time.perf_counter() + seconds, 1
    while time.perf_counter() < end:
        for batch in loader.epoch(epoch):
            yield batch
            if time.perf_counter() >= end:
                return
        epoch += 1


def _whole(split: Split, args: argparse.Namespace, report: Report) -> None:
    with _OpenLoader(split, args) as loader:
        _time_whole(loader, args, report)


def _time_whole(loader: TrainLoader, args: argparse.Namespace, report: Report) -> None:
    for _ in loader.epoch(0):
        pass
    if args.cold:
        _drop_cache(loader.split)
    meter = loader.reader.meter
    bytes_before, reads_before = meter.bytes, meter.reads
    seconds: dict[str, float] = defaultdict(float)
    videos, start, cpu = 0, time.perf_counter(), time.process_time()
    for batch in _epochs(loader, args.seconds):
        videos += len(batch.ids)
        for stage, spent in batch.wait.items():
            seconds[stage] += spent
    if args.device != "cpu":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    stored = loader.split.samples["size"].mean()
    per_video = (meter.bytes - bytes_before) / videos
    frames = loader.sampling.segments * loader.sampling.frames
    rows = [
        ("videos", videos / wall, "per s"),
        ("frames", videos * frames / wall, "per s"),
        ("processor time", 1e3 * cpu / videos, "ms per video"),
        ("videos if every core were free", cores() * videos / cpu, "per s"),
        ("bytes read", per_video / 1e3 if per_video else None, "kB per video"),
        ("bytes read of those stored", 100 * per_video / stored if per_video else None, "%"),
        ("reads", (meter.reads - reads_before) / videos, "per video"),
        ("resident set, highest", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB"),
    ]
    rows += [
        (f"held up by {stage}", 1e3 * seconds[stage] / videos, "ms per video")
        for stage in (*STAGES, "starved", "wait")
    ]
    for what, value, unit in rows:
        report.add(what=what, value=value, unit=unit)


def _drop_cache(split: Split) -> None:
    for path in split.tars:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _stages(split: Split, args: argparse.Namespace, report: Report) -> None:
    with _OpenLoader(split, args) as loader:
        _time_stages(loader, args, report)


def _time_stages(loader: TrainLoader, args: argparse.Namespace, report: Report) -> None:
    """Time each stage alone: milliseconds per video, and of CPU time."""
    source, decoder = loader.source, loader.source.make_decoder()
    spent: dict[str, list[float]] = {stage: [0.0, 0.0] for stage in STAGES}
    videos, end, epoch = 0, time.perf_counter() + args.seconds, 0

    def timed(stage: str, function: Any, *given: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*given)
        spent[stage][0] += time.perf_counter() - wall
        spent[stage][1] += time.process_time() - cpu
        return result

    while time.perf_counter() < end:
        requests, epoch = source.open(epoch), epoch + 1
        while (request := timed("plan", next, requests, None)) is not None:
            loaded = timed("read", source.load, request)
            decoder.submit(loaded.encoded)
            outputs = timed("decode", decoder.collect)
            stage = "augment" if decoder.resizes_here else "handover"
            timed(stage, decoder.tensor, outputs)
            videos += loader.batch_size
    decoder.close()
    for stage, (wall, cpu) in spent.items():
        report.add(what=f"{stage} alone", value=1e3 * wall / videos, unit="ms per video")
        report.add(what=f"{stage}, processor", value=1e3 * cpu / videos, unit="ms per video")


def _beside_training(split: Split, args: argparse.Namespace, report: Report) -> None:
    """Time training steps of a network of many small layers, without and with the loader.

    The step is nearly all Python, the worst case for threads that need the interpreter lock. On a
    CPU the loader runs on the other half of the cores.
    """
    torch.set_num_threads(1)  # with two, each waits when the other loses its core
    own_cores, others = halves_of_cores()
    os.sched_setaffinity(0, own_cores)
    alone, own = _training_steps(args.seconds)
    os.sched_setaffinity(0, others)  # threads that start now inherit it
    with _OpenLoader(split, args, threads=1, read_threads=1) as loader:
        stop, count = threading.Event(), [0]

        def consume() -> None:
            epoch = 0
            while not stop.is_set():
                for batch in loader.epoch(epoch):
                    count[0] += len(batch.ids)
                    if stop.is_set():
                        return
                epoch += 1

        thread = threading.Thread(target=consume)
        thread.start()
        time.sleep(1.0)
        os.sched_setaffinity(0, own_cores)
        before, start = count[0], time.perf_counter()
        beside, busy = _training_steps(args.seconds)
        rate = (count[0] - before) / (time.perf_counter() - start)
        stop.set()
        thread.join()
    for what, steps in (("step alone", alone), ("step beside the loader", beside)):
        report.add(what=what, value=1e3 * statistics.median(steps), unit="ms")
        report.add(what=f"{what}, 99 %", value=1e3 * float(np.quantile(steps, 0.99)), unit="ms")
    for name, without, with_loader in zip(("lock", "core"), own, busy, strict=True):
        value = 100 * (with_loader - without)
        report.add(what=f"step's share spent waiting for a {name}", value=value, unit="%")
    report.add(what="loader beside the steps", value=rate, unit="videos per s")


def _training_steps(seconds: float) -> tuple[list[float], tuple[float, float]]:
    """Seconds of each step, and the shares of time spent waiting.

    The shares are those of this thread's wait for the interpreter lock and for a core.
    """
    torch.manual_seed(0)
    layers = [layer for _ in range(20) for layer in (torch.nn.Linear(64, 64), torch.nn.ReLU())]
    network = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    data, steps = torch.randn(16, 64), []
    begun, (ran, queued) = time.perf_counter(), _scheduled()
    while time.perf_counter() < begun + seconds:
        start = time.perf_counter()
        network(data).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        steps.append(time.perf_counter() - start)
    wall, (ran_now, queued_now) = time.perf_counter() - begun, _scheduled()
    core = (queued_now - queued) / wall
    return steps, (1 - (ran_now - ran) / wall - core, core)


def _scheduled() -> tuple[float, float]:
    """Seconds that this thread has run and has waited for a core, from the kernel's statistics."""
    ran, queued, _ = Path("/proc/thread-self/schedstat").read_text(encoding="utf-8").split()
    return int(ran) / 1e9, int(queued) / 1e9
