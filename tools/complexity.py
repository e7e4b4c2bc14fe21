#!/usr/bin/env python3
"""Print parameters and multiply-adds of the networks, with the figures of the paper.

python tools/complexity.py
python tools/complexity.py --model dsa_i3d_r50 --frames 8 --size 256 --num-classes 400
"""

from __future__ import annotations

import argparse
import sys

from published import NOTES, costs_table, giga, marked, new_table, sizes_table
from rich.console import Console
from rich.table import Table

from dsanet import ModelError, list_models
from dsanet.complexity import View, count_model
from dsanet.terminal import escape_unencodable_output, print_line


def models_table(names: list[str], view: View, num_classes: int) -> Table:
    """A table of the cost of networks, for one view of a video."""
    columns = ("network", "parameters", "GMACs", "of which DSA", "as the paper counts")
    table = new_table(f"One view of {view}, {num_classes} classes", columns)
    for name in names:
        cost = count_model(name, num_classes, view)
        dsa = f"{cost.aggregation / 1e9:.4f}"
        figures = (giga(cost.multiply_adds), dsa, giga(cost.paper))
        table.add_row(marked(name), f"{cost.parameters:,}", *figures)
    return table


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="Without --model, prints the paper's tables and then every network.",
    )
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME", help="networks to count")
    parser.add_argument("--segments", type=int, default=4, metavar="U", help="snippets (4)")
    parser.add_argument("--frames", type=int, default=4, metavar="T", help="frames per snippet (4)")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels (224)")
    parser.add_argument("--num-classes", type=int, default=400, help="classes (400)")
    return parser.parse_args()


def main() -> int:
    escape_unencodable_output()
    args = parse()
    view = View(args.segments, args.frames, args.size)
    console = Console() if sys.stdout.isatty() else Console(width=110)
    try:
        tables = [] if args.model else [sizes_table(), costs_table()]
        tables.append(models_table(args.model or list_models(), view, args.num_classes))
    except ModelError as error:
        print_line(f"error: {error}", error=True)
        return error.exit_code
    for table in tables:
        console.print(table)
    if not args.model:
        console.print(NOTES, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
