"""Training from shards, compared with the same training steps on data already in memory."""

from __future__ import annotations

import argparse
import dataclasses
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

from benches.report import Labelled, Report
from benches.shard_sets import describe, repeat_split, shard_set
from benches.timing import halves_of_cores
from benches.videos import kind_of_videos
from dsanet.engine import EngineError
from dsanet.engine.command_line import parse_train
from dsanet.engine.launch.distributed import World, use_device
from dsanet.engine.launch.signals import Signals
from dsanet.engine.report.console import Console
from dsanet.engine.report.stall_meter import Times
from dsanet.engine.resume import open_folder
from dsanet.engine.setup import Training, build_training
from dsanet.engine.trainer import Trainer
from pipelines import Batch

ROOT = Path(__file__).resolve().parents[2]
# On a CPU the network computes on half of the cores, in place of a GPU, and the loader works on the
# others. The network is sized to use about the share of the loader's speed that an H100 uses of 16
# cores: some 350 of 1,600 videos/s.
SIZES = {
    "cuda": {"batch.videos": 32, "batch.per_gpu": 32},
    "cpu": {
        "batch.videos": 8, "batch.per_gpu": 8, "network.width": 8,
        "augment.size": 112, "augment.short_sides": [128, 160],
    },
}  # fmt: skip
SETTLE = 4  # steps that are not timed: they use up the batches queued during the pause


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="shard set (default: one is made)")
    parser.add_argument("--model", help="default: dsa_i3d_r50 on a GPU, dsa_i3d_r18 on a CPU")
    parser.add_argument(
        "--blocks", type=int, default=4, help="timed blocks of each contestant, alternating (4)"
    )
    parser.add_argument(
        "--steps", type=int, help="steps in a block (default: 40 on a GPU, 8 on a CPU)"
    )
    parser.add_argument("--start", action="store_true", help="also time from command to first step")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of train.py"
    )


def device_kind() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def command(args: argparse.Namespace, data: Path, out: Path) -> list[str]:
    """Arguments of train.py for the training that is measured."""
    kind = device_kind()
    model = args.model or ("dsa_i3d_r50" if kind == "cuda" else "dsa_i3d_r18")
    words = ["--data", str(data), "--model", model, "--out", str(out), "--recipe", "kinetics400"]
    words += [f"--{key}={value}" for key, value in SIZES[kind].items()]
    words += ["--schedule.warmup_epochs=0", "--validation.split=null", "--checkpoint.keep=1"]
    return words + [f"--{pair}" for pair in args.set]


def build(args: argparse.Namespace, data: Path, scratch: Path, steps: int) -> Training:
    """The run that both contestants share, on a split long enough for all steps."""
    config = parse_train([*command(args, data, scratch / "run"), "--log.every=1000000000"])
    repeat_split(data, config.split, scratch / "repeated", steps * config.batch.videos)
    config = dataclasses.replace(config, data=str(scratch / "repeated"))
    world = World(device=use_device(config.runtime.device))
    open_folder(config, world, [world.describe()])
    return build_training(config, world, Console(enabled=False), Signals())


def synthetic(training: Training) -> Iterator[Batch]:
    """One batch of noise, repeated without end, on the device."""
    config, layout = training.config, training.state.layout
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
    """The loader's batches.

    On a CPU the loader's threads run on the second half of the cores, and the calling thread, which
    trains, on the first.
    """
    batches, (own, others) = training.loader.epoch(0), halves_of_cores()
    os.sched_setaffinity(0, others)
    first = next(batches)  # starts the loader's threads, which inherit the affinity
    os.sched_setaffinity(0, own)
    return chain([first], batches)


def run_block(trainer: Trainer, batches: Iterator[Batch], steps: int) -> float:
    """Seconds per step, after SETTLE steps that are not timed."""
    for _ in range(SETTLE):
        trainer.train_step(batches)
    wait_for(trainer)
    trainer.epoch_times = Times()
    start = time.perf_counter()
    for _ in range(steps):
        trainer.train_step(batches)
    wait_for(trainer)
    return (time.perf_counter() - start) / steps


def wait_for(trainer: Trainer) -> None:
    trainer.read_pending()
    if trainer.world.device.type == "cuda":
        torch.cuda.synchronize()
    trainer.meter.restart()


def compare(
    trainer: Trainer,
    contestants: dict[str, Iterator[Batch]],
    blocks: int,
    steps: int,
    report: Report | Labelled,
) -> None:
    """Time both contestants in alternating blocks; the ratio is taken block by block.

    The rows are written after each pair of blocks.
    """
    for batches in contestants.values():
        run_block(trainer, batches, 1)  # compilation, algorithms, caches
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    waits, first, videos = Times(), len(report.rows), trainer.layout.videos
    for _ in range(blocks):
        for name, batches in contestants.items():
            seconds[name].append(run_block(trainer, batches, steps))
            if name == "shards":
                waits.add(trainer.epoch_times)
        report.replace(rows(seconds, videos, waits), first)


def rows(seconds: dict[str, list[float]], videos: int, waits: Times) -> list[dict[str, Any]]:
    """The speed of each contestant, and the ratio of the two; seconds: a step, of each block."""
    found: list[dict[str, Any]] = []
    for name, values in seconds.items():
        median = statistics.median(values)
        found.append(
            {"case": name, "ms_per_step": 1000 * median, "videos_per_second": videos / median}
        )
    pairs = zip(seconds["synthetic"], seconds["shards"], strict=True)
    ratios = sorted(without / with_data for without, with_data in pairs)
    found.append({
        "case": "shards / synthetic",
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
        "wait_share": waits.share,
        "verdict": waits.verdict(),
    })  # fmt: skip
    return found


def first_step(words: list[str], cache: Path) -> float:
    """Seconds from the start of train.py to the end of the first step of a new run."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words, "--log.every=1"],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        stepped = any(" step 1 " in line for line in process.stdout)
        seconds = time.perf_counter() - start
        process.send_signal(signal.SIGKILL)
    if not stepped:
        raise EngineError("train.py ended before its first step; see its error above")
    return seconds


def run(args: argparse.Namespace, report: Report) -> None:
    kind = device_kind()
    steps = args.steps or (40 if kind == "cuda" else 8)
    with shard_set(args.data) as data, TemporaryDirectory(prefix="dsanet-bench-") as scratch:
        out = Path(scratch)
        training = build(args, data, out, (SETTLE + steps) * (args.blocks + 2))
        clips = "given" if args.data else kind_of_videos()
        facts: dict[str, Any] = {"case": "setting", "data": describe(data), "clips": clips}
        if kind == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))
            facts["network_threads"] = torch.get_num_threads()
        report.add(**facts, model=training.config.model, batch=training.state.layout.videos)
        try:
            training.state.model.train()
            contestants = {"synthetic": synthetic(training), "shards": on_other_cores(training)}
            trainer = Trainer(training)
            case = {"case": "shards / synthetic"}
            report.attempt(case, compare, trainer, contestants, args.blocks, steps, report)
        finally:
            training.close()
        for number, name in enumerate(("cold", "warm") if args.start else ()):
            fresh, case = (
                command(args, data, out / f"start{number}"),
                {"case": f"first step, {name}"},
            )
            report.attempt(case, _time_start, fresh, out / "inductor", case, report)


def _time_start(words: list[str], cache: Path, case: dict[str, str], report: Report) -> None:
    report.add(**case, seconds=first_step(words, cache))
