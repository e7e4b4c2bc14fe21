#!/usr/bin/env python3
"""Reproduce a table of the paper: print the commands of its rows, or run them and compare.

python tools/ablate.py 2c --data SHARDS                      print the commands
python tools/ablate.py 2c --data SHARDS --out runs/2c --run  train and evaluate rows without scores
python tools/ablate.py 2c --data SHARDS --out runs/2c        print the scores and the paper's

Options after -- go to each train.py; {backbone} is replaced by resnet18 or resnet50:
python tools/ablate.py 2h --data SHARDS -- --weights {backbone}.pth --batch.per_gpu 16
Exit codes: 0 done, 1 a row failed (the others still run), 2 wrong usage.
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

from dsanet.terminal import escape_unencodable_output, print_line

ROOT = Path(__file__).resolve().parent.parent


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES, help="the table's number in the paper")
    parser.add_argument("--data", required=True, help="folder of the shard set")
    parser.add_argument("--out", type=Path, help="folder for the runs (default: runs/table-TABLE)")
    parser.add_argument(
        "--run", action="store_true", help="train and evaluate the rows, one after another"
    )
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.extra = words[end + 1 :]
    args.out = args.out or Path("runs") / f"table-{args.table}"
    return args


def folder_name(row: Row) -> str:
    """The folder of a row's run, made of the row's label."""
    return re.sub(r"[^a-z0-9]+", "-", row.label.lower()).strip("-")


def commands(row: Row, data: str, run: Path, extra: list[str]) -> list[list[str]]:
    """The commands that train and evaluate one row."""
    backbone = "resnet18" if row.model.endswith("r18") else "resnet50"
    extra = [word.replace("{backbone}", backbone) for word in extra]
    train = ["train.py", "--data", data, "--model", row.model, "--recipe", row.recipe]
    train += ["--out", str(run), *row.options, *extra]
    test = ["eval.py", "--data", data, "--checkpoint", str(run), "--clips", str(row.clips)]
    return [train, [*test, "--crops", "3", "--out", str(run / "eval")]]


def execute(steps: list[list[str]], run: Path) -> bool:
    """Run a row unless it has a score; return whether it has one now."""
    for script, *arguments in [] if (run / "eval" / "metrics.json").is_file() else steps:
        if subprocess.run([sys.executable, str(ROOT / script), *arguments]).returncode:
            print_line(f"error: {run}: {script} failed; the other rows still run", error=True)
            return False
    return True


def measured(run: Path) -> dict[str, float | None] | None:
    """The scores of a row, or None if it is not evaluated."""
    path = run / "eval" / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _percent(share: float | None) -> str:
    return "no labels" if share is None else f"{100 * share:.1f}"


def compare(number: str, runs: dict[Path, Row]) -> Table:
    """A table of the scores of the runs and of the paper."""
    table = Table(title=f"Table {number}")
    for name in ("row", "top-1 here", "top-5 here", "top-1 paper", "top-5 paper"):
        table.add_column(name, justify="left" if name == "row" else "right")
    for run, row in runs.items():
        scores = measured(run)
        here = ["not run" if scores is None else _percent(scores[key]) for key in ("top1", "top5")]
        paper = ["" if value is None else f"{value:.1f}" for value in (row.top1, row.top5)]
        table.add_row(row.label, *here, *paper)
    return table


def main() -> int:
    escape_unencodable_output()
    args = parse()
    runs = {args.out / folder_name(row): row for row in TABLES[args.table]}
    steps = {run: commands(row, args.data, run, args.extra) for run, row in runs.items()}
    good = True
    if args.run:
        good = sum(execute(steps[run], run) for run in runs) == len(runs)
    elif not any(measured(run) for run in runs):
        for pair in steps.values():
            for step in pair:
                print_line(f"python {shlex.join(step)}")
    Console().print(compare(args.table, runs))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
