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
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benches.report import Report, failure
from benches.videos import CACHE_VARIABLE

from dsanet.engine.launch.distributed import use_device
from dsanet.engine.main import run_command

SCRIPT = Path(__file__).resolve()
BENCHMARKS = {
    "model": "training step and 8x3 inference, compared with the released formulation",
    "decode": "ways to decode, compared with other libraries",
    "loader": "the loader alone, stage by stage",
    "train": "training from shards, compared with data already in memory",
    "tune": "the settings that --loader.tune takes, compared with fixed ones",
    "eval": "evaluation with 8 clips x 3 crops, compared with the network alone",
    "shard": "making shards, compared with plain ffmpeg",
}
# What `all` runs, in this order, sized for a machine with a GPU.
ALL = {
    "model": ["--frames", "4", "--parts", "train"],
    "decode": ["--seconds", "2", "--blocks", "2", "--copies", "8", "--peer-videos", "32"],
    "train": ["--start"],
    "loader": [],
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
    """Run several benchmarks one after another, each in a process with a GPU to itself.

    If one fails, its JSON file keeps its rows, and the others go on. They share generated videos.
    """
    failed, begun = [], time.perf_counter()
    with TemporaryDirectory(prefix="dsanet-bench-") as clips:
        environment = {CACHE_VARIABLE: clips} | os.environ
        for name, words in ALL.items():
            command = [sys.executable, str(SCRIPT), name, *words]
            if json:
                command += ["--json", str(json.with_name(f"{json.stem}-{name}.json"))]
            if subprocess.run(command, env=environment).returncode:
                failed.append(name)
    print(f"{', '.join(ALL)}: {time.perf_counter() - begun:.0f} s")
    if failed:
        print(f"error: failed: {', '.join(failed)}; see their errors above", file=sys.stderr)
    return 1 if failed else 0


def run_one(args: argparse.Namespace) -> int:
    """Run one benchmark; an error becomes a row of its JSON file too."""
    report, start = Report(args.benchmark, args.json), time.perf_counter()
    try:
        importlib.import_module(f"benches.{args.benchmark}").run(args, report)
    except Exception as error:
        report.add(failed=failure(error))
        raise
    finally:
        report.environment["seconds"] = time.perf_counter() - start
        report.write()
    report.table()
    if report.failures:
        print(f"error: {report.failures} failed; see `failed` in the table", file=sys.stderr)
    return 1 if report.failures else 0


def main() -> int:
    args = parse()
    if args.benchmark == "all":
        return run_all(args.json)
    if "device" in args:
        args.device = str(use_device(args.device))
    return run_one(args)


if __name__ == "__main__":
    sys.exit(run_command(main))
