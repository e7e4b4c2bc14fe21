#!/usr/bin/env python3
"""Measure one part of the project, or all of it.

python tools/bench.py model --model dsa_i3d_r50 --json bench.json
python tools/bench.py all --json bench.json
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

from benches.common import Report

from dsanet.engine.launch.distributed import use_device
from dsanet.engine.main import guarded

SUBJECTS = {
    "model": "training step and 8x3 inference against the release's formulation",
    "decode": "decode strategies and codecs against the peers",
    "loader": "the loader alone, stage by stage",
    "train": "training from shards against synthetic input",
    "eval": "evaluation with 8 clips x 3 crops",
    "shard": "the sharder against plain ffmpeg",
}
# `all` is cut to what a GPU machine does in eight minutes.
ALL = {
    "model": ["--frames", "4", "--parts", "train"],
    "loader": [],
    "train": ["--start"],
    "decode": ["--seconds", "2", "--blocks", "2", "--copies", "8", "--peer-videos", "32"],
}


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
    """Run the subjects one after another; one that fails is reported and the rest go on."""
    failed, begun = [], time.perf_counter()
    for name, words in ALL.items():
        module, start = importlib.import_module(f"benches.{name}"), time.perf_counter()
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        report = Report(name, json.with_name(f"{json.stem}-{name}.json") if json else None)
        report.environment["arguments"] = words
        try:
            module.run(parser.parse_args(words), report)
        except Exception as error:
            traceback.print_exc()
            report.add(failed=f"{type(error).__name__}: {error}")
            failed.append(name)
        report.environment["seconds"] = time.perf_counter() - start
        report.write()
    print(f"{', '.join(ALL)}: {time.perf_counter() - begun:.0f} s")
    if failed:
        print(f"error: failed: {', '.join(failed)}; see the rows above", file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    args = parse()
    if args.subject == "all":
        return run_all(args.json)
    if "device" in args:
        args.device = str(use_device(args.device))
    report = Report(args.subject, args.json)
    importlib.import_module(f"benches.{args.subject}").run(args, report)
    report.table()
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
