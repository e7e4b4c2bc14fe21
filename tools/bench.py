#!/usr/bin/env python3
"""Measure one part of the project, or all of it.

python tools/bench.py model --model dsa_i3d_r50 --json bench.json
python tools/bench.py all --json bench.json
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benches.common import Report

SUBJECTS = {
    "model": "training step and 8x3 inference against the release's formulation",
    "decode": "decode strategies and codecs against the peers",
    "loader": "the loader alone, stage by stage",
    "train": "training from shards against synthetic input",
    "eval": "evaluation with 8 clips x 3 crops",
    "shard": "the sharder against plain ffmpeg",
}
# `all` keeps to what a short lease of a GPU machine can hold, most telling first.
ALL = ("model", "decode", "loader", "train")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for name, text in SUBJECTS.items():
        subject = subjects.add_parser(name, help=text, description=text)
        subject.add_argument("--json", type=Path, help="write rows, machine and versions here")
        importlib.import_module(f"benches.{name}").add_arguments(subject)
    everything = subjects.add_parser("all", help=f"{', '.join(ALL)}, one after another")
    everything.add_argument("--json", type=Path, help="one file per subject: NAME-subject.json")
    return parser.parse_args()


def run_all(json: Path | None) -> int:
    """Run each subject with its defaults; one that fails is reported and the rest go on."""
    failed = []
    for name in ALL:
        module = importlib.import_module(f"benches.{name}")
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        path = json.with_name(f"{json.stem}-{name}.json") if json else None
        try:
            module.run(parser.parse_args([]), Report(name, path))
        except Exception as error:
            print(f"error: bench {name}: {type(error).__name__}: {error}", file=sys.stderr)
            failed.append(name)
    return 1 if failed else 0


def main() -> int:
    args = parse()
    if args.subject == "all":
        return run_all(args.json)
    report = Report(args.subject, args.json)
    importlib.import_module(f"benches.{args.subject}").run(args, report)
    report.table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
