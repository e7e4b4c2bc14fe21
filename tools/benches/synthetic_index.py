"""An index of any number of videos, without the videos, and what it costs to open it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shards import ShardSettings
from shards.format.index import ARRAYS
from shards.format.manifest import FORMAT, FORMAT_VERSION, write_json


def synthetic_split(root: Path, videos: int, frames: int, per_tar: int = 64) -> None:
    """Write the side files of a split `root`/train with `videos` samples of `frames` frames."""
    folder = root / "train"
    folder.mkdir(parents=True)
    count = -(-videos // per_tar)
    samples = np.zeros(videos, ARRAYS["samples"])
    samples["tar"] = np.arange(videos) // per_tar
    samples["offset"], samples["size"] = 512, 3_000_000
    samples["first_frame"] = np.arange(videos) * frames
    samples["num_frames"], samples["width"], samples["height"] = frames, 340, 256
    samples["fps"], samples["label"] = 30, np.arange(videos) % 400
    samples["first_fragment"] = -1
    samples["first_label"], samples["num_labels"] = np.arange(videos), 1
    np.save(folder / "samples.npy", samples)
    table = np.lib.format.open_memmap(
        folder / "frames.npy", "w+", ARRAYS["frames"], (videos * frames,)
    )
    table["size"] = 10_000
    table.flush()
    keys = np.char.mod(b"key%09d", np.arange(videos)).astype(ARRAYS["keys"])
    np.save(folder / "keys.npy", keys)
    np.save(folder / "labels.npy", samples["label"])
    np.save(folder / "fragments.npy", np.zeros(0, ARRAYS["fragments"]))
    tars = [
        {"name": f"train-{n:06d}.tar", "size": 4_000_000, "sha256": "0" * 64, "samples": per_tar}
        for n in range(count)
    ]
    sources = {"ok": videos, "missing": 0, "refused": 0, "deferred": 0}
    counts = {"samples": videos, "frames": videos * frames, "sources": sources}
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "split": "train", "counts": counts}
    classes = [f"class {n}" for n in range(400)]
    more = {"classes": classes, "settings": ShardSettings().recorded(), "tars": tars}
    write_json(folder / "manifest.json", manifest | more)


PROBE = """
import json, sys, time
from pathlib import Path
import numpy as np
from shards import open_split

def private_mb():  # without mapped files, whose pages all readers share
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").split("\\n")[1:-1]
    return int(dict(line.split(":") for line in lines)["Anonymous"].split()[0]) / 1000

before, started = private_mb(), time.perf_counter()
split = open_split(sys.argv[1], "train")
opened = time.perf_counter() - started
n, rng, total = len(split), np.random.default_rng(0), 0
started = time.perf_counter()
for i in rng.integers(n, size=2000):
    row = split.samples[i]
    total += int(split.frames["size"][row["first_frame"] + row["num_frames"] // 2])
    split.key(int(i)), split.labels(int(i)), split.tar_path(int(i))
lookup = (time.perf_counter() - started) / 2000
print(json.dumps({"seconds": opened, "megabytes": private_mb() - before, "lookup": lookup, "n": n}))
"""


def probe_index(root: Path) -> dict[str, Any]:
    """Open `root`/train in a new process and measure it.

    The keys are seconds (to open it), megabytes (private memory added), lookup (seconds for one
    random look-up) and n (samples).
    """
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(root)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )
    return dict(json.loads(done.stdout))
