#!/usr/bin/env python3
"""Check and measure this project on a GPU that it has not run on, in one command.

  python tools/gpu_check.py --json DIR      seven minutes at most (--minutes); DIR: a new folder
  python tools/gpu_check.py --list          what would run, in which order

Each part runs in a process of its own with a time limit, and one that fails or hangs costs no other
one. DIR/PART.json is rewritten with each row, DIR/summary.json after each part: it has the machine,
the state of each part and the goals, which are also printed at the end. Nothing is downloaded.
Without a GPU everything that does not need one runs at toy sizes.

Exit codes: 0 all checks passed; 1 a part or a check failed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # a fresh clone needs no installation

from gpu.plan import NAMES, listing  # noqa: E402

# Seconds before its limit at which a part should end by itself, and one that hangs prints where.
MARGIN = 3.0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="for all parts; the last ones are cut (7)"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=NAMES, metavar="PART", default=NAMES,
        help=f"only these of {', '.join(NAMES)}",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print what would run, and stop")
    # For the processes that this command starts.
    parser.add_argument("--run-part", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--cudnn-search", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=120.0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not (args.list or args.cudnn_search) and args.json is None:
        parser.error("--json DIR is needed, or --list")
    if args.minutes <= 0:
        parser.error(f"--minutes must be more than 0, got {args.minutes:g}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.list:
        print(listing())
        return 0
    if args.run_part or args.cudnn_search:
        return run_here(args)
    from gpu.check import Check

    args.json.mkdir(parents=True, exist_ok=True)
    files = [args.json / f"{name}.json" for name in (*NAMES, "summary")]
    if present := [path for path in files if path.exists()]:
        print(f"error: {present[0]} exists already; choose another --json", file=sys.stderr)
        return 2
    try:
        with TemporaryDirectory(prefix="dsanet-gpu-check-") as scratch:
            return Check(args.json, Path(scratch), 60 * args.minutes, args.parts).run()
    except KeyboardInterrupt:
        print(f"error: interrupted; what was measured is in {args.json}", file=sys.stderr)
        return 130


def run_here(args: argparse.Namespace) -> int:
    """Run one part in this process, which a run of this command has started."""
    seconds = max(args.seconds - MARGIN, 1.0)
    faulthandler.dump_traceback_later(seconds)
    from gpu.part import run_part, search_cudnn  # imports torch, which may hang in the driver

    if args.cudnn_search:
        return search_cudnn(args.scratch)
    return run_part(args.run_part, args.json, args.scratch, seconds)


if __name__ == "__main__":
    sys.exit(main())
