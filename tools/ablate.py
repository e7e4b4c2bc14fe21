#!/usr/bin/env python3
"""Rebuild a table of the paper: print the commands of its rows, or run them and compare.

python tools/ablate.py 2c --data SHARDS                          print the commands
python tools/ablate.py 2c --data SHARDS --out runs/2c --run      train and evaluate what is missing
python tools/ablate.py 2c --data SHARDS --out runs/2c            then: the scores beside the paper's

Options behind -- go to every train.py, {backbone} standing for resnet18 or resnet50:
python tools/ablate.py 2h --data SHARDS -- --weights {backbone}.pth --batch.per_gpu 16
Exit codes: 0 done, 1 a row failed (the others go on), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from ablations import TABLES, Row
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES, help="number of the table in the paper")
    parser.add_argument("--data", required=True, help="folder of the shard set")
    parser.add_argument("--out", type=Path, help="folder of the runs (default: runs/table-TABLE)")
    parser.add_argument("--run", action="store_true", help="run the rows one after another")
    own = sys.argv[1:]
    cut = own.index("--") if "--" in own else len(own)
    args = parser.parse_args(own[:cut])
    args.extra = own[cut + 1 :]
    args.out = args.out or Path("runs") / f"table-{args.table}"
    return args


def folder_name(row: Row) -> str:
    """A row's label as the name of its run."""
    return re.sub(r"[^a-z0-9]+", "-", row.label.lower()).strip("-")


def commands(row: Row, data: str, run: Path, extra: list[str]) -> list[list[str]]:
    """train.py and eval.py for one row."""
    backbone = "resnet18" if row.model.endswith("r18") else "resnet50"
    extra = [word.replace("{backbone}", backbone) for word in extra]
    train = ["train.py", "--data", data, "--model", row.model, "--recipe", row.recipe]
    train += ["--out", str(run), *row.options, *extra]
    test = ["eval.py", "--data", data, "--checkpoint", str(run), "--clips", str(row.clips)]
    return [train, [*test, "--crops", "3", "--out", str(run / "eval")]]


def execute(steps: list[list[str]], run: Path) -> bool:
    """Run a row unless it has its score already; whether it has one now."""
    for script, *arguments in [] if (run / "eval" / "metrics.json").is_file() else steps:
        if subprocess.run([sys.executable, str(ROOT / script), *arguments]).returncode:
            print(f"error: {script} failed for {run}; the other rows go on", file=sys.stderr)
            return False
    return True


def measured(run: Path) -> dict[str, float] | None:
    """metrics.json of a row, if it has been evaluated."""
    path = run / "eval" / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else None


def compare(number: str, runs: dict[Path, Row]) -> Table:
    """The table: what was measured here beside what the paper prints."""
    table = Table(title=f"Table {number}")
    for name in ("row", "top-1 here", "top-5 here", "top-1 paper", "top-5 paper"):
        table.add_column(name, justify="left" if name == "row" else "right")
    for run, row in runs.items():
        scores = measured(run)
        here = [f"{100 * scores[key]:.1f}" if scores else "not run" for key in ("top1", "top5")]
        paper = ["" if value is None else f"{value:.1f}" for value in (row.top1, row.top5)]
        table.add_row(row.label, *here, *paper)
    return table


def main() -> int:
    args = parse()
    runs = {args.out / folder_name(row): row for row in TABLES[args.table]}
    steps = {run: commands(row, args.data, run, args.extra) for run, row in runs.items()}
    good = True
    if args.run:
        good = sum(execute(steps[run], run) for run in runs) == len(runs)
    elif not any(measured(run) for run in runs):
        for pair in steps.values():
            print("\n".join(f"python {shlex.join(step)}" for step in pair))
    Console().print(compare(args.table, runs))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
