#!/usr/bin/env python3
"""Measure the speed of one part of the project, or of several.

Each measurement is a row on the screen. With --json the rows are also written to a file, with the
machine, the versions and the command.

  python tools/bench.py loader --data SHARDS --json loader.json
  python tools/bench.py loader --help            the options of one benchmark
  python tools/bench.py all --json bench.json    writes bench-model.json, bench-loader.json, ...

Benchmarks make the videos that they need; DSANET_CLIPS=FOLDER gives them real ones (*.mp4).
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

from benches.report import Report

from dsanet.engine.launch.distributed import use_device
from dsanet.engine.main import run_command

BENCHMARKS = {
    "model": "training step and 8x3 inference, compared with the released formulation",
    "decode": "ways to decode, compared with other libraries",
    "loader": "the loader alone, stage by stage",
    "train": "training from shards, compared with data already in memory",
    "eval": "evaluation with 8 clips x 3 crops, compared with the network alone",
    "shard": "making shards, compared with plain ffmpeg",
}
# `all` is sized to take eight minutes on a machine with a GPU.
ALL = {
    "model": ["--frames", "4", "--parts", "train"],
    "loader": [],
    "train": ["--start"],
    "decode": ["--seconds", "2", "--blocks", "2", "--copies", "8", "--peer-videos", "32"],
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benchmarks = parser.add_subparsers(
        title="benchmarks", dest="benchmark", required=True, metavar="BENCHMARK"
    )
    for name, text in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=text, description=text.capitalize() + ".")
        benchmark.add_argument("--json", type=Path, help="write rows, machine and versions here")
        importlib.import_module(f"benches.{name}").add_arguments(benchmark)
    together = f"{', '.join(ALL)}, one after another"
    everything = benchmarks.add_parser("all", help=together, description=together.capitalize())
    everything.add_argument("--json", type=Path, help="write NAME-BENCHMARK.json for each")
    return parser.parse_args()


def run_all(json: Path | None) -> int:
    """Run several benchmarks one after another; if one fails, report it and go on."""
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
        print(f"error: failed: {', '.join(failed)}; see the tracebacks above", file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    args = parse()
    if args.benchmark == "all":
        return run_all(args.json)
    if "device" in args:
        args.device = str(use_device(args.device))
    report = Report(args.benchmark, args.json)
    importlib.import_module(f"benches.{args.benchmark}").run(args, report)
    report.table()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
