#!/usr/bin/env python3
"""Draw the trace of `train.py --profile` as a picture: what each thread and the GPU do when.

  python tools/plot_trace.py RUN/profile/trace-steps-20-24.json.gz --out trace.png

Perfetto (https://ui.perfetto.dev) shows the same file in full.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dsanet.engine.errors import EngineError
from dsanet.engine.main import run_command
from dsanet.terminal import print_line

# The loader's ranges, then the trainer's, each with its colour.
RANGES = {
    "plan": "#b8b8b8", "read": "#7fb3d5", "decode": "#2e86c1", "augment": "#1a5276",
    "wait for data": "#c0392b", "forward": "#52be80", "backward": "#1e8449", "update": "#f39c12",
}  # fmt: skip
KERNELS = "GPU kernels"
Lane = list[tuple[str, float, float]]


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The events of a trace of torch.profiler.

    Raises:
        EngineError: when the file is not one.
    """
    try:
        data = path.read_bytes()
        content = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        return list(content["traceEvents"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{path}: is not a trace of train.py --profile: {error}") from error


def lanes(events: Iterable[dict[str, Any]]) -> dict[str, Lane]:
    """Name of a lane -> (range, start, duration) in ms: one for each range, one for all kernels."""
    found: dict[str, Lane] = defaultdict(list)
    for event in events:
        if event.get("ph") != "X":
            continue
        span = float(event["ts"]) / 1000, float(event.get("dur", 0)) / 1000
        if event.get("cat") == "user_annotation" and event["name"] in RANGES:
            found[event["name"]].append((event["name"], *span))
        elif event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            found[KERNELS].append((KERNELS, *span))
    order = [*RANGES, KERNELS]
    return {name: found[name] for name in order if name in found}


def draw(found: dict[str, Lane], out: Path, title: str) -> None:
    """Write a picture with one row for each lane, time to the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    start = min(begin for lane in found.values() for _, begin, _ in lane)
    figure, axes = plt.subplots(figsize=(11, 0.45 * len(found) + 1.3))
    for row, (name, lane) in enumerate(found.items()):
        spans = [(begin - start, duration) for _, begin, duration in lane]
        axes.broken_barh(spans, (row - 0.38, 0.76), color=RANGES.get(name, "#6c3483"))
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=Path, help="trace-steps-A-B.json.gz")
    parser.add_argument("--out", type=Path, required=True, help="picture to write (.png, .svg)")
    parser.add_argument("--title", default="", help="title of the picture")
    args = parser.parse_args(argv)
    found = lanes(read_trace(args.trace))
    if not found:
        raise EngineError(f"{args.trace}: has no ranges of train.py --profile")
    draw(found, args.out, args.title or args.trace.name)
    print_line(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
