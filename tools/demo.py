#!/usr/bin/env python3
"""Run the whole project on generated videos: make shards, train two networks, evaluate, compare.

The classes of the videos differ only in the order of events. TSN, which averages the scores of the
snippets, cannot tell the classes apart; DSA, which mixes snippets in order, can.

    python tools/demo.py --out demo            # about four minutes on two CPU cores
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from demo_report import summarise
from demo_videos import VideoSettings, class_names, plan_split, write_split
from rich.console import Console
from rich.progress import track
from rich.text import Text

from dsanet.engine.main import run_command
from dsanet.errors import printable

ROOT = Path(__file__).resolve().parent.parent
# The demo's narrow network has too few channels for the paper's beta of 1/8.
MODELS = {"tsn_i3d_r18": (), "dsa_i3d_r18": ("--network.beta", "0.5")}
SPLITS = {"train": 240, "val": 60}
console = Console()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="output folder (default: demo)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of videos and training (default: 1)"
    )
    return parser.parse_args()


def run(script: str, *arguments: str) -> float:
    """Run one of the project's scripts, and return its wall time in seconds."""
    command = [script, *arguments]
    text = Text(f"\n$ python {printable(shlex.join(command))}", style="bold")
    console.print(text, highlight=False, soft_wrap=True)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(ROOT / script), *arguments])
    if done.returncode:
        sys.exit(f"error: {script} failed with exit code {done.returncode}; see its message above")
    return time.perf_counter() - start


def make_videos(folder: Path, seed: int) -> None:
    """Draw and encode the videos of both splits."""
    settings = VideoSettings()
    console.print(Text(printable(f"Drawing {sum(SPLITS.values())} videos into {folder} ...")))
    for number, (name, count) in enumerate(SPLITS.items()):
        files = write_split(folder, name, plan_split(number, count, seed, settings), settings)
        for _ in track(files, f"drawing {count} {name} videos", total=count, console=console):
            pass
    (folder / "complete").write_text(f"{seed}\n", encoding="utf-8")


def check_seed(folder: Path, seed: int) -> bool:
    """Whether the videos exist already; exit with an error if they have another seed."""
    marker = folder / "complete"
    if not marker.is_file():
        return False
    if marker.read_text(encoding="utf-8").strip() != str(seed):
        sys.exit(f"error: {folder}: has videos of another seed; choose another --out")
    return True


def main() -> int:
    args = parse()
    videos, shards = args.out / "videos", args.out / "shards"
    console.print(
        f"{len(class_names())} classes show the same four events; only their order differs."
    )
    if not check_seed(videos, args.seed):
        make_videos(videos, args.seed)
    for split in SPLITS:
        listing = ["--list", str(videos / f"{split}.txt"), "--split", split]
        run(
            *("tools/shard.py", "--dataset", "folder", "--videos", str(videos), *listing),
            *("--classes", str(videos / "classes.txt"), "--out", str(shards)),
            *("--short-side", "96"),
        )
    seconds = {}
    for model, options in MODELS.items():
        out = args.out / "runs" / model
        seconds[model] = run(
            *("train.py", "--data", str(shards), "--model", model, "--recipe", "demo"),
            *("--out", str(out), "--seed", str(args.seed), *options),
        )
        run(
            *("eval.py", "--data", str(shards), "--checkpoint", str(out), "--split", "val"),
            *("--clips", "8", "--crops", "3", "--out", str(out / "eval")),
        )
    summarise(args.out, seconds, args.seed, console)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
