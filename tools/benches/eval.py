"""Evaluation with 8 clips x 3 crops from shards, compared with the network alone."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dsanet
from benches.report import Report
from benches.shard_sets import describe, shard_set
from dsanet.engine import execution
from dsanet.engine.evaluation.scoring import HostCopy, Scorer
from dsanet.engine.launch.distributed import use_device
from dsanet.inference import fold_batch_norms
from pipelines import EvalLoader, LoaderConfig, Rank, SamplingConfig
from shards import open_split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="shard set (default: one is made)")
    parser.add_argument("--model", help="default: dsa_i3d_r50 on a GPU, dsa_i3d_r18 on a CPU")
    parser.add_argument(
        "--width", type=int, help="channels of the stem (default: 64 on a GPU, 8 on a CPU)"
    )
    parser.add_argument(
        "--size", type=int, help="side of a crop, pixels (default: 256 on a GPU, 112 on a CPU)"
    )
    parser.add_argument("--clips", type=int, default=8, help="clips along a video (8)")
    parser.add_argument("--crops", type=int, default=3, choices=(1, 3), help="crops of a clip (3)")
    parser.add_argument(
        "--batch", type=int, help="videos in a batch (default: 8 on a GPU, 1 on a CPU)"
    )
    parser.add_argument("--blocks", type=int, default=3, help="timed blocks, alternating (3)")
    parser.add_argument("--batches", type=int, help="batches in a block (default: 10 on a GPU, 4)")


def build(args: argparse.Namespace, device: torch.device) -> Scorer:
    """A network in evaluation mode that averages the scores of a video's views."""
    on_gpu = device.type == "cuda"
    name = args.model or ("dsa_i3d_r50" if on_gpu else "dsa_i3d_r18")
    width = args.width or (64 if on_gpu else 8)
    model = dsanet.build_model(name, num_classes=400, segments=4, width=width).to(device).eval()
    network = execution.compiled(fold_batch_norms(model), None, device, print)
    precision = execution.pick_precision("auto", device)
    return Scorer(network, model.segments, precision, device)


def run(args: argparse.Namespace, report: Report) -> None:
    device = use_device("auto")
    on_gpu = device.type == "cuda"
    batch, batches = args.batch or (8 if on_gpu else 1), args.batches or (10 if on_gpu else 4)
    size = args.size or (256 if on_gpu else 112)
    if not on_gpu:  # half of the cores take the place of the GPU
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    scorer = build(args, device)
    with shard_set(args.data) as data:
        split = open_split(data, "val")
        videos = max(len(split), batch * (batches + 2) * (args.blocks + 1))
        split = split.part(np.arange(videos) % len(split))  # long enough for all blocks
        loader = EvalLoader(
            split, SamplingConfig(), LoaderConfig(), batch_size=batch, clips=args.clips,
            crops=args.crops, crop_size=size, resize_short=size, rank=Rank(device=str(device)),
        )  # fmt: skip
        threads = torch.get_num_threads()
        report.add(
            case="setting", data=describe(data), batch=batch, size=size, network_threads=threads
        )
        try:
            compare(scorer, loader, args, batches, report)
        finally:
            loader.close()


def compare(
    scorer: Scorer, loader: EvalLoader, args: argparse.Namespace, batches: int, report: Report
) -> None:
    """Time the network alone and with the loader in alternating blocks; rows after each pair."""
    stream = iter(loader)
    clips = next(stream).clips.clone()
    seconds: dict[str, list[float]] = {"network alone": [], "from shards": []}
    first = len(report.rows)
    scorer(clips)
    for _ in range(args.blocks):
        seconds["network alone"].append(time_scores(scorer, itertools.repeat(clips, batches)))
        next(stream)  # loaded while the network alone was timed
        loaded = (batch.clips for batch in itertools.islice(stream, batches))
        seconds["from shards"].append(time_scores(scorer, loaded))
        report.replace(rows(seconds, loader.batch_size, args.clips * args.crops), first)


def time_scores(scorer: Scorer, batches: Iterable[Tensor]) -> float:
    """Seconds a batch; the scores of one are read once the work on the next one is queued."""
    start, count, previous = time.perf_counter(), 0, None
    for clips in batches:
        current = HostCopy(scorer.inputs(clips).mean(1))
        if previous is not None:
            previous.read()
        previous, count = current, count + 1
    if previous is not None:
        previous.read()
    return (time.perf_counter() - start) / count


def rows(seconds: dict[str, list[float]], batch: int, views: int) -> list[dict[str, Any]]:
    """The speed of each contestant, and the ratio of the two; seconds: a batch, of each block."""
    found: list[dict[str, Any]] = []
    for name, values in seconds.items():
        rate = batch / statistics.median(values)
        found.append({"case": name, "videos_per_second": rate, "views_per_second": views * rate})
    pairs = zip(seconds["network alone"], seconds["from shards"], strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    return [*found, {"case": "shards / network", "ratio": ratio}]
