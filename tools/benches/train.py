"""Training end to end from shards against the same steps on data that are already there."""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benches.clips import kind_of_clips
from benches.common import Report, halves_of_cores
from benches.shardset import describe, lengthen, shard_set
from dsanet.engine.config import parse_train
from dsanet.engine.launch.distributed import World, use_device
from dsanet.engine.launch.signals import Signals
from dsanet.engine.report.console import Console
from dsanet.engine.report.stall_meter import Times
from dsanet.engine.resume import open_folder
from dsanet.engine.setup import Training, assemble
from dsanet.engine.trainer import Loop
from pipelines import Batch

ROOT = Path(__file__).resolve().parents[2]
# On a CPU half of the cores stand in for the GPU: the network computes on these, and the loader
# works on the others. The network is sized to ask of the loader about the share of its speed that
# an H100 asks of 16 cores: some 350 of 1,600 videos/s.
SIZES = {
    "cuda": {"batch.videos": 32, "batch.per_gpu": 32},
    "cpu": {
        "batch.videos": 8, "batch.per_gpu": 8, "network.width": 8,
        "augment.size": 112, "augment.short_sides": [128, 160],
    },
}  # fmt: skip
SETTLE = 4  # uncounted steps: the loader's full queue from the pause before must be used up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="shard set (default: Kinetics-like clips)")
    parser.add_argument("--model", help="default: dsa_i3d_r50 on a GPU, dsa_i3d_r18 on a CPU")
    parser.add_argument("--blocks", type=int, default=4, help="of each contestant, alternating")
    parser.add_argument("--steps", type=int, help="of a block (default: 40 on a GPU, 8 on a CPU)")
    parser.add_argument("--start", action="store_true", help="time from command to first step too")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of train.py")


def command(args: argparse.Namespace, data: Path, out: Path, kind: str) -> list[str]:
    """Command line of the training that is measured."""
    model = args.model or ("dsa_i3d_r50" if kind == "cuda" else "dsa_i3d_r18")
    words = ["--data", str(data), "--model", model, "--out", str(out), "--recipe", "kinetics400"]
    words += [f"--{key}={value}" for key, value in SIZES[kind].items()]
    words += ["--schedule.warmup_epochs=0", "--validation.split=null", "--checkpoint.keep=1"]
    return words + [f"--{pair}" for pair in args.set]


def build(words: list[str], steps: int) -> Training:
    """The run that both contestants share, on a split long enough for all steps."""
    config = parse_train([*words, "--log.every=1000000000"])
    world = World(device=use_device(config.runtime.device))
    open_folder(config, world, [world.describe()])
    training = assemble(config, world, Console(speak=False), Signals())
    lengthen(training.split, steps * training.layout.videos)
    return training


def synthetic(training: Training) -> Iterator[Batch]:
    """The same batch of noise for ever, on the device."""
    config, layout = training.config, training.layout
    sampling, size, videos = (
        config.sampling,
        config.augment.size,
        layout.micro * layout.accumulation,
    )
    shape = (videos, sampling.segments, sampling.frames, size, size, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=training.world.device)
    ids = torch.zeros(videos, dtype=torch.int64)
    return repeat(Batch(clips, ids, ids.numpy(), ids.numpy() == 0))


def on_other_cores(training: Training) -> Iterator[Batch]:
    """The loader's batches; on a CPU its threads keep to the second half of the cores and the
    calling thread, which trains, to the first."""
    batches, (own, others) = training.loader.epoch(0), halves_of_cores()
    os.sched_setaffinity(0, others)
    first = next(batches)  # starts the threads, which stay where they began
    os.sched_setaffinity(0, own)
    return chain([first], batches)


def run_block(loop: Loop, batches: Iterator[Batch], steps: int) -> float:
    """Seconds a step, after the settling ones."""
    for _ in range(SETTLE):
        loop.train_step(batches)
    wait_for(loop)
    loop.epoch_times = Times()
    start = time.perf_counter()
    for _ in range(steps):
        loop.train_step(batches)
    wait_for(loop)
    return (time.perf_counter() - start) / steps


def wait_for(loop: Loop) -> None:
    loop.review()
    if loop.t.world.device.type == "cuda":
        torch.cuda.synchronize()
    loop.meter.restart()


def compare(training: Training, args: argparse.Namespace, steps: int, report: Report) -> None:
    """Alternate blocks of both contestants; the ratio is taken block by block."""
    loop = Loop(training)
    training.model.train()
    contestants = {"synthetic": synthetic(training), "shards": on_other_cores(training)}
    for batches in contestants.values():
        run_block(loop, batches, 1)  # compilation, algorithms, caches
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    waits = Times()
    for _ in range(args.blocks):
        for name, batches in contestants.items():
            seconds[name].append(run_block(loop, batches, steps))
            if name == "shards":
                waits.add(loop.epoch_times)
    videos = training.layout.videos
    for name, values in seconds.items():
        median = statistics.median(values)
        report.add(case=name, ms_per_step=1000 * median, videos_per_second=videos / median)
    pairs = zip(seconds["synthetic"], seconds["shards"], strict=True)
    ratios = sorted(without / with_data for without, with_data in pairs)
    report.add(
        case="shards / synthetic",
        ratio=statistics.median(ratios),
        lowest=ratios[0],
        highest=ratios[-1],
        wait_share=waits.share,
        verdict=waits.verdict(),
    )


def first_step(words: list[str], cache: Path) -> float:
    """Seconds from the command to the end of the first step of a fresh run."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words, "--log.every=1"],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        found = any(" step 1 " in line for line in process.stdout)
        seconds = time.perf_counter() - start
        process.send_signal(signal.SIGKILL)
    if not found:
        raise RuntimeError("train.py took no step; see its error above")
    return seconds


def run(args: argparse.Namespace, report: Report) -> None:
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    steps = args.steps or (40 if kind == "cuda" else 8)
    with shard_set(args.data) as data, TemporaryDirectory(prefix="dsanet-bench-") as scratch:
        out = Path(scratch)
        words = command(args, data, out / "run", kind)
        total = (SETTLE + steps) * (args.blocks + 2)
        training = build(words, total)
        clips = "given" if args.data else kind_of_clips()
        facts: dict[str, Any] = {"case": "setting", "data": describe(data), "clips": clips}
        if kind == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))
            facts["network_threads"] = torch.get_num_threads()
        report.add(**facts, model=training.config.model, batch=training.layout.videos)
        try:
            compare(training, args, steps, report)
        finally:
            training.close()
        for number, name in enumerate(("cold", "warm") if args.start else ()):
            fresh = command(args, data, out / f"start{number}", kind)
            report.add(case=f"first step, {name}", seconds=first_step(fresh, out / "inductor"))
