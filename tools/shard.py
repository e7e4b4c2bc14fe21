#!/usr/bin/env python3
"""Make, check and repair shard sets, which hold the videos for training.

python tools/shard.py --dataset kinetics400 --videos k400 --list train.csv --split train --out DIR
python tools/shard.py verify SHARDS     check every file and every frame
python tools/shard.py merge SHARDS      finish a split that several --task I/N have written
python tools/shard.py reindex SHARDS    rebuild every side file from the tars alone

exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some videos were not used (they are listed)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from shard_arguments import add_build_arguments, read_listing

from dsanet.errors import UserError
from dsanet.limits import describe_failure
from dsanet.terminal import escape_unencodable_output, print_line
from shards import ShardSettings, build_split
from shards.build.plan import parse_task
from shards.build.progress import BuildProgress, print_report, verify_with_progress
from shards.build.state import merge, reindex
from shards.format.manifest import find_splits


def build(args: argparse.Namespace, console: Console) -> int:
    fps = args.fps or ("30" if "kinetics" in args.dataset else "native")
    names = {field.name for field in fields(ShardSettings)}
    chosen = {name: value for name, value in vars(args).items() if name in names}
    settings = ShardSettings(**(chosen | {"fps": fps}))
    task = parse_task(args.task)
    listing = read_listing(args)
    for warning in listing.warnings:
        print_line(f"warning: {warning}", error=True)
    with BuildProgress(console) as progress:
        report = build_split(
            listing.sources, args.out, args.split, listing.classes, settings,
            task=task, watcher=progress.watcher,
        )  # fmt: skip
    print_report(report, print_line)
    return report.exit_code


def verify(args: argparse.Namespace, console: Console) -> int:
    faults: list[str] = []
    for folder in find_splits(args.path):
        workers = args.workers or ShardSettings().effective_workers
        new = verify_with_progress(folder, workers, console)
        print_line(f"{folder}: {len(new)} faults" if new else f"{folder}: valid")
        faults += new
    for fault in faults:
        print_line(f"fault: {fault}", error=True)
    return 1 if faults else 0


def write_side_files(write: Callable[[Path], dict[str, Any]]) -> Callable[..., int]:
    """Return a command that runs `write`, which returns a manifest, on every split."""

    def command(args: argparse.Namespace, console: Console) -> int:
        for folder in find_splits(args.path):
            counts = write(folder)["counts"]
            print_line(f"{folder}: {counts['samples']} samples, {counts['frames']} frames")
        return 0

    return command


COMMANDS = {
    "verify": (verify, "check every file and every frame"),
    "merge": (write_side_files(merge), "finish a split that several --task I/N have written"),
    "reindex": (write_side_files(reindex), "rebuild every side file from the tars alone"),
}


def make_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="shard.py", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    text = "make a split; the command when the first word is an option"
    building = commands.add_parser("build", help=text, description=text)
    add_build_arguments(building)
    building.set_defaults(run=build)
    for name, (run, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", type=Path, metavar="SHARDS", help="a shard set or a split")
        workers = "threads (0: one for each core)" if name == "verify" else argparse.SUPPRESS
        command.add_argument("--workers", type=int, default=0, help=workers)
        command.set_defaults(run=run)
    parser.epilog = f"the options of build:\n\n{building.format_help()}"
    return parser


def main() -> int:
    escape_unencodable_output()
    words = sys.argv[1:]
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        words = ["build", *words]
    args = make_parser().parse_args(words)
    try:
        return args.run(args, Console(stderr=True))
    except UserError as error:
        print_line(f"error: {error}", error=True)
        return error.exit_code
    except (OSError, MemoryError, RuntimeError) as error:
        print_line(f"error: {describe_failure(error)}", error=True)
        return 1
    except KeyboardInterrupt:
        print_line("error: interrupted; run the same command again to go on", error=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
