#!/usr/bin/env python3
"""Draw the paper's Figure 3, accuracy on Kinetics-400 against the cost of a test, with own runs.

python tools/accuracy_cost.py --out figure3.png
python tools/accuracy_cost.py --out figure3.png runs/k400/eval-val-8x3 ...

The points of the paper are those of its Table 4. The cost of an own run is counted in the same way,
for crops of 224 pixels (docs/models.md); its folder is one that eval.py has written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsanet.complexity import View, count_model
from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.html_report.run import read_runs
from dsanet.engine.main import run_command
from dsanet.terminal import print_line


@dataclass(frozen=True)
class Point:
    """A test of a network: the cost of a video in G, and top-1 in per cent."""

    label: str
    giga: float
    top1: float


@dataclass(frozen=True)
class Series:
    """Points of one method, joined by a line."""

    name: str
    colour: str
    points: tuple[Point, ...]


# Table 4, the methods of Figure 3.
TABLE_4 = (
    Series("TSM", "#8a929b", (Point("8 x 10 x 3", 990, 74.1),)),
    Series("TEA", "#6b4f9e", (Point("8 x 10 x 3", 1050, 75.0),)),
    Series("MVFNet", "#2f9e75", (Point("8 x 10 x 3", 990, 76.0),)),
    Series("X3D-L", "#a98600", (Point("16 x 10 x 3", 744, 77.5),)),
    Series(
        "SlowFast",
        "#3b82c4",
        (Point("R50 4+32", 1083, 75.6), Point("R50 8+32", 1971, 77.0), Point("R101", 3180, 77.9)),
    ),
    Series("SlowOnly (I3D) R50", "#b060b8", (Point("8 x 10 x 3", 1257, 74.9),)),
    Series("V4D R50", "#1c2024", (Point("8 x 10 x 3", 2146, 77.4),)),
    Series(
        "DSANet R50",
        "#d1495b",
        (Point("T = 4", 503, 77.7), Point("T = 8", 1006, 78.2), Point("4 + 8", 1509, 79.0)),
    ),
)


def own_point(folder: Path) -> Point:
    """The point of an evaluation's folder inside a run folder.

    Raises:
        UsageError: when it is not one, or has no accuracy.
    """
    [run] = read_runs([folder.resolve().parent], None)
    evaluation = next((e for e in run.evaluations if e.folder.name == folder.resolve().name), None)
    if evaluation is None or evaluation.metrics["top1"] is None:
        raise UsageError(f"{folder}: has no accuracy; give a folder of eval.py in a run folder")
    protocol = evaluation.metrics["protocol"]
    segments = protocol["segments"] or 1
    view = View(segments, protocol["sampling"]["frames"])
    options = {**run.config["network"]}
    cost = count_model(run.config["model"], len(evaluation.scores.classes), view, **options)
    inputs = protocol["crops"] * protocol["clips"] / segments
    return Point(run.name, cost.paper * inputs / 1e9, 100 * evaluation.metrics["top1"])


def draw(own: Sequence[Point], out: Path) -> None:
    """Draw all points into a picture, PNG or SVG by its name.

    Raises:
        EngineError: when it cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.4), constrained_layout=True)
    for series in TABLE_4:
        x, y = [p.giga for p in series.points], [p.top1 for p in series.points]
        axes.plot(x, y, "-o", color=series.colour, label=series.name, linewidth=1.5)
        for point in series.points if len(series.points) > 1 else ():
            axes.annotate(
                point.label, (point.giga, point.top1), (5, -11), textcoords="offset points",
                fontsize=7, color=series.colour,
            )  # fmt: skip
    for point in own:
        axes.plot(point.giga, point.top1, "*", color="black", markersize=12)
        axes.annotate(
            point.label, (point.giga, point.top1), (7, 4), textcoords="offset points", fontsize=8
        )
    axes.set(xlabel="multiply-adds of a test of one video, in G", ylabel="top-1 on Kinetics-400, %")
    axes.set_title("Table 4 of the paper" + (", and own runs (stars)" if own else ""), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    try:
        figure.savefig(out, dpi=140)
    except (OSError, ValueError) as error:
        raise EngineError(f"{out}: cannot be written ({error})") from error
    finally:
        plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="EVALUATION", help="folder of eval.py"
    )
    parser.add_argument("--out", type=Path, required=True, help="picture: FILE.png or FILE.svg")
    args = parser.parse_args()
    draw([own_point(folder) for folder in args.runs], args.out)
    print_line(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
