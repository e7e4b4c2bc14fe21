"""The report of the demo: a table of both networks and a plot of their training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demo_videos import class_names
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dsanet.errors import printable

COLOURS = {"tsn_i3d_r18": "#8c8c8c", "dsa_i3d_r18": "#d1495b"}
LABELS = {"tsn_i3d_r18": "TSN (snippet scores averaged)", "dsa_i3d_r18": "DSA (snippets mixed)"}


def read_records(run: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl, in order."""
    return [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def curve(records: list[dict[str, Any]], kind: str, key: str) -> tuple[list[float], list[float]]:
    """The epochs, and the values of one key, of all records of one kind."""
    rows = [record for record in records if record["kind"] == kind]
    return [row["epoch"] for row in rows], [row[key] for row in rows]


def plot(runs: dict[str, Path], path: Path) -> None:
    """Plot training loss and validation accuracy of the runs into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for model, run in runs.items():
        records = read_records(run)
        style = {"color": COLOURS[model], "label": LABELS[model], "linewidth": 2}
        left.plot(*curve(records, "train", "loss"), **style)
        right.plot(*curve(records, "val", "top1"), marker="o", markersize=3, **style)
    chance = 1 / len(class_names())
    right.axhline(chance, color="black", linewidth=1, linestyle=":")
    right.text(0.01, chance + 0.01, "chance", fontsize=8, transform=right.get_yaxis_transform())
    left.set(title="training loss", xlabel="epoch", ylim=(0, None))
    right.set(title="validation top-1 (one view)", xlabel="epoch", ylim=(0, 1.03))
    left.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def summarise(out: Path, seconds: dict[str, float], seed: int, console: Console) -> None:
    """Print the table of both networks and write curves.png and results.json into `out`."""
    runs = {model: out / "runs" / model for model in seconds}
    table = Table(title=f"Which of {len(class_names())} orders of the same four events? (val)")
    for name in ("network", "top-1, 8 clips x 3 crops", "top-1, one view", "training"):
        table.add_column(name, justify="left" if name == "network" else "right")
    results = {}
    for model, run in runs.items():
        scores = json.loads((run / "eval" / "metrics.json").read_text(encoding="utf-8"))
        single = curve(read_records(run), "val", "top1")[1][-1]
        results[model] = {
            "top1": scores["top1"],
            "top1_one_view": single,
            "videos": scores["videos"],
        }
        table.add_row(
            LABELS[model], f"{scores['top1']:.1%}", f"{single:.1%}", f"{seconds[model]:.0f} s"
        )
    chance = 1 / len(class_names())
    table.add_row("chance", f"{chance:.1%}", f"{chance:.1%}", "")
    console.print()
    console.print(table)
    text = json.dumps({"seed": seed, **results}, indent=1) + "\n"
    (out / "results.json").write_text(text, encoding="utf-8")
    plot(runs, out / "curves.png")
    text = f"Curves: {out / 'curves.png'}   runs: {out / 'runs'}   (seed {seed})"
    console.print(Text(printable(text)))
