#!/usr/bin/env python3
"""Turn a folder of videos into a shard set: paid for once, read at the model's speed.

python tools/shard.py --dataset folder --videos DIR --list train.txt --classes classes.txt \
    --split train --out SHARDS
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shards import ShardError, ShardSettings, build_split
from shards.annotations import read_classes, read_csv, read_folder


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, choices=("folder", "csv"))
    parser.add_argument("--videos", required=True, type=Path)
    parser.add_argument("--list", required=True, type=Path)
    parser.add_argument("--classes", type=Path)
    parser.add_argument("--split", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--codec", default="mjpeg")
    parser.add_argument("--workers", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    args = parse()
    try:
        names = read_classes(args.classes) if args.classes else ()
        read = {"folder": read_folder, "csv": read_csv}[args.dataset]
        sources, classes = read(args.videos, args.list, names)
        settings = ShardSettings(codec=args.codec, workers=args.workers)
        report = build_split(sources, args.out, args.split, classes, settings)
    except ShardError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{report.ok} samples, {len(report.refused)} refused, {report.seconds:.1f} s")
    for verdict in report.refused:
        print(f"  {verdict['source']}: {verdict['kind']}: {verdict['reason']}")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
