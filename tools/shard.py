#!/usr/bin/env python3
"""Turn videos into a shard set: paid for once, read at the model's speed.

python tools/shard.py --dataset kinetics400 --videos k400 --list train.csv --split train --out DIR
python tools/shard.py verify SHARDS     read everything again and name each fault
python tools/shard.py merge SHARDS      finish a split that several --task I/N have written
python tools/shard.py reindex SHARDS    rebuild every side file from the tars alone

exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some videos were not used (they are listed)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from shards import ShardError, ShardSettings, build_split
from shards.annotations import DATASETS, read_classes, read_list
from shards.build.plan import parse_task
from shards.build.progress import BuildProgress, print_report, verify_with_progress
from shards.build.state import merge, reindex
from shards.format.manifest import find_splits, read_set_classes
from shards.format.settings import CODECS

UPKEEP = {"merge": merge, "reindex": reindex}


def parse_build(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("what").add_argument
    add("--dataset", required=True, choices=DATASETS)
    add("--videos", required=True, type=Path, metavar="DIR")
    add("--list", required=True, type=Path, metavar="FILE")
    add("--classes", type=Path, metavar="FILE", help="class names, one a line, in label order")
    add("--split", required=True, metavar="NAME")
    add("--out", required=True, type=Path, metavar="SHARDS")
    add("--segments", default="whole", help="activitynet: whole, labelled, or seconds")
    add = parser.add_argument_group("how frames are stored").add_argument
    add("--codec", default="mjpeg", choices=CODECS)
    add("--quality", type=int, help="mjpeg: 2 (best) to 31; else the constant rate factor")
    add("--short-side", type=int, default=256, help="pixels; nothing is enlarged")
    add("--fps", help='"native" or a rate; default 30 for Kinetics, native otherwise')
    add("--gop", type=int, default=4, help="frames per closed GOP of h264, hevc, vp9")
    add("--copy", action="store_true", help="keep packets that already are as asked")
    add("--keep-partial", type=int, default=0, metavar="N", help="keep N or more good frames")
    add("--max-seconds", type=float, default=1200.0, help="the longest sample")
    add("--seed", type=int, default=0, help="of the order of the samples")
    add("--tar-samples", type=int, help="samples in a tar; default by the list's length")
    add = parser.add_argument_group("how the work is done").add_argument
    add("--workers", type=int, default=0, help="processes; default one a core")
    add("--task", default="0/1", metavar="I/N", help="do share I (from 0) of N, then merge")
    add("--cpu-seconds", type=int, default=300, help="CPU time a video may take")
    add("--memory-mb", type=int, default=2048, help="memory a worker may take")
    return parser.parse_args(arguments)


def build(args: argparse.Namespace, console: Console) -> int:
    names = ("codec", "quality", "short_side", "gop", "copy", "keep_partial", "max_seconds", "seed")
    names += ("tar_samples", "workers", "cpu_seconds", "memory_mb")
    fps = args.fps or ("30" if "kinetics" in args.dataset else "native")
    settings = ShardSettings(fps=fps, **{name: getattr(args, name) for name in names})
    given = read_classes(args.classes) if args.classes else read_set_classes(args.out, args.split)
    listing = read_list(
        args.dataset, args.videos, args.list, given, split=args.split, segments=args.segments
    )
    with BuildProgress(console) as progress:
        task, watcher = parse_task(args.task), progress.watcher
        report = build_split(
            listing.sources, args.out, args.split, listing.classes, settings,
            task=task, watcher=watcher,
        )  # fmt: skip
    print_report(report, lambda line: print(line))
    return report.exit_code


def upkeep(verb: str, arguments: list[str], console: Console) -> int:
    parser = argparse.ArgumentParser(prog=f"shard.py {verb}", description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, metavar="SHARDS", help="a shard set, or one split of it")
    parser.add_argument("--workers", type=int, default=0, help="of verify; default one a core")
    args = parser.parse_args(arguments)
    faults: list[str] = []
    for folder in find_splits(args.path):
        if verb == "verify":
            found = verify_with_progress(folder, args.workers or ShardSettings().effective_workers, console)
            faults += found
            print(f"{folder}: {len(found)} faults" if found else f"{folder}: sound")
        else:
            counts = UPKEEP[verb](folder)["counts"]
            print(f"{folder}: {counts['samples']} samples, {counts['frames']} frames")
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if faults else 0


def main() -> int:
    console = Console(stderr=True)
    try:
        if sys.argv[1:] and sys.argv[1] in ("verify", *UPKEEP):
            return upkeep(sys.argv[1], sys.argv[2:], console)
        return build(parse_build(sys.argv[1:]), console)
    except ShardError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on from here", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
