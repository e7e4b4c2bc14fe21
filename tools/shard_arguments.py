"""The options of `tools/shard.py build`, and the list that they name."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from shards.annotations import DATASETS, Listing, ListOptions, read_classes, read_list
from shards.annotations.options import DELIMITERS
from shards.format.manifest import read_set_classes
from shards.format.settings import CODECS


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    add = parser.add_argument_group("what").add_argument
    add("--dataset", required=True, choices=DATASETS, help="how the list is read")
    add("--videos", required=True, type=Path, metavar="DIR", help="folder of the videos")
    add("--list", required=True, type=Path, metavar="FILE", help="list of videos and labels")
    add("--classes", type=Path, metavar="FILE",
        help="class names, one per line or JSON, in label order")  # fmt: skip
    add("--split", required=True, metavar="NAME", help="name of the split, such as train")
    add("--out", required=True, type=Path, metavar="SHARDS", help="folder of the shard set")
    _add_list_options(parser)
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


def _add_list_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a list is read, which are the fields of `ListOptions`."""
    add = parser.add_argument_group("how the list is read").add_argument
    add(
        "--unlabelled",
        action="store_true",
        help="folder, csv, mmaction2: the list has no labels; its videos are to be scored",
    )
    add(
        "--columns",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="NAMES",
        help="csv, Kinetics: the columns of a file without a header, such as path,label",
    )
    add(
        "--delimiter",
        default="comma",
        choices=DELIMITERS,
        help="csv, Kinetics: between fields (comma)",
    )
    add("--multi-label", action="store_true", help="mmaction2: a line may have several labels")
    add("--fold", type=int, default=1, help="hmdb51: 1, 2 or 3 (1)")
    add("--segments", default="whole", help="activitynet: whole, labelled, or seconds (whole)")
    add(
        "--folder-fps",
        default="",
        metavar="RATE",
        help="frame rate of videos that are folders of JPEGs (25; Something-Something: 12)",
    )
    add("--allow-outside", action="store_true",
        help="take paths and links that lead out of --videos")  # fmt: skip


def read_listing(args: argparse.Namespace) -> Listing:
    """Read the list; without --classes, another split of the set has the class names."""
    if args.classes:
        classes, origin = read_classes(args.classes), str(args.classes)
    else:
        split, classes = read_set_classes(args.out, args.split)
        origin = f"split {split} of {args.out}" if split else ""
    names = {field.name for field in fields(ListOptions)}
    chosen = {name: value for name, value in vars(args).items() if name in names}
    options = ListOptions(**chosen, classes_from=origin)
    return read_list(
        args.dataset, args.videos, args.list, classes, split=args.split, options=options
    )


def add_set_arguments(command: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of the command `name`, which works on a set that is there."""
    command.add_argument("path", type=Path, metavar="SHARDS", help="a shard set or a split")
    workers = "threads (0: one for each core)" if name == "verify" else argparse.SUPPRESS
    command.add_argument("--workers", type=int, default=0, help=workers)
    if name == "reindex":
        text = "first replace tars of format version 1 by version 2"
        command.add_argument("--upgrade", action="store_true", help=text)
