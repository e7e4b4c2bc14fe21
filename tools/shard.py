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
from typing import Any

from rich.console import Console
from shard_arguments import add_build_arguments, add_set_arguments, read_listing

from dsanet.errors import UserError
from dsanet.limits import describe_failure
from dsanet.terminal import escape_unencodable_output, print_line
from shards import ShardSettings, build_split
from shards.build import progress
from shards.build.plan import parse_task
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
    with progress.BuildProgress(console) as bar:
        report = build_split(
            listing.sources, args.out, args.split, listing.classes, settings,
            task=task, watcher=bar.watcher,
        )  # fmt: skip
    progress.print_report(report, print_line)
    return report.exit_code


def verify(args: argparse.Namespace, console: Console) -> int:
    faults: list[str] = []
    for folder in find_splits(args.path):
        workers = args.workers or ShardSettings().effective_workers
        new = progress.verify_with_progress(folder, workers, console)
        print_line(f"{folder}: {len(new)} faults" if new else f"{folder}: valid")
        faults += new
    for fault in faults:
        print_line(f"fault: {fault}", error=True)
    return 1 if faults else 0


def write_side_files(write: Callable[..., dict[str, Any]], *flags: str) -> Callable[..., int]:
    """Return a command that runs `write` with these options of the command on every split."""

    def command(args: argparse.Namespace, console: Console) -> int:
        for folder in find_splits(args.path):
            manifest = write(folder, **{name: getattr(args, name) for name in flags})
            progress.print_side_files(folder, manifest, print_line)
        return 0

    return command


COMMANDS = {
    "verify": (verify, "check every file and every frame"),
    "merge": (write_side_files(merge), "finish a split that several --task I/N have written"),
    "reindex": (write_side_files(reindex, "upgrade"), "rebuild the side files from the tars"),
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
        add_set_arguments(command, name)
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
