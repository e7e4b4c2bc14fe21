#!/usr/bin/env python3
"""Write a report of one or several runs into one HTML file that needs nothing else.

python tools/report.py runs/mine                       writes runs/mine/report.html
python tools/report.py runs/tsn runs/dsa --out both.html

It has the curves, what the steps waited for, scores and confusion of every evaluation in the run
folder, the worst and best videos with their frames and the kernels of DSA, the data, all settings
with their sources, and the commands that repeat it.
Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dsanet.engine.html_report.build import ReportConfig, write_report
from dsanet.engine.main import run_command
from dsanet.terminal import print_line


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder of train.py")
    parser.add_argument("--out", type=Path, help="file to write (default: RUN/report.html)")
    parser.add_argument(
        "--data", type=Path, help="folder of the shard set, if it is not where the run read it"
    )
    parser.add_argument(
        "--videos", type=int, default=4, help="worst and best videos shown; 0: none (default: 4)"
    )
    return parser.parse_args()


def main() -> int:
    args = parse()
    path = write_report(ReportConfig(tuple(args.runs), args.out, args.data, args.videos))
    print_line(f"{path}  ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
