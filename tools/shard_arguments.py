"""The options of `tools/shard.py build`."""

from __future__ import annotations

import argparse
from pathlib import Path

from shards.annotations import DATASETS
from shards.format.settings import CODECS


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    add = parser.add_argument_group("what").add_argument
    add("--dataset", required=True, choices=DATASETS, help="how the list is read")
    add("--videos", required=True, type=Path, metavar="DIR", help="folder of the videos")
    add("--list", required=True, type=Path, metavar="FILE", help="list of videos and labels")
    add("--classes", type=Path, metavar="FILE", help="class names, one per line, in label order")
    add("--split", required=True, metavar="NAME", help="name of the split, such as train")
    add("--out", required=True, type=Path, metavar="SHARDS", help="folder of the shard set")
    add("--segments", default="whole", help="activitynet: whole, labelled, or seconds (whole)")
    add = parser.add_argument_group("how frames are stored").add_argument
    add("--codec", default="mjpeg", choices=CODECS, help="codec of the frames (mjpeg)")
    add("--quality", type=int, help="mjpeg: 2 (best) to 31; others: constant rate factor")
    add("--short-side", type=int, default=256, help="largest short side in pixels (256)")
    add("--fps", help='"native" or a rate (30 for Kinetics, else native)')
    add("--gop", type=int, default=4, help="frames in a closed GOP of h264, hevc, vp9 (4)")
    add("--copy", action="store_true", help="store packets that already have the format")
    add("--keep-partial", type=int, default=0, metavar="N",
        help="keep the undamaged beginning of a video if it has N frames (0: never)")  # fmt: skip
    add("--max-seconds", type=float, default=1200.0, help="longest sample (1200)")
    add("--seed", type=int, default=0, help="seed of the order of the samples (0)")
    add("--tar-samples", type=int, help="samples in a tar (64, fewer for a short list)")
    add = parser.add_argument_group("how the work is done").add_argument
    add("--workers", type=int, default=0, help="worker processes (0: one for each core)")
    add("--task", default="0/1", metavar="I/N", help="write share I (from 0) of N; then merge")
    add("--cpu-seconds", type=int, default=300, help="CPU time for a video (300)")
    add("--memory-mb", type=int, default=2048, help="memory for a worker (2048)")
