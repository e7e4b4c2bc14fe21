"""The index of a set as large as Kinetics-400 opens in a moment and costs next to no memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shards.synthetic import synthetic_split

PROBE = """
import json, sys, time
from pathlib import Path
import numpy as np
from shards import open_split

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().split("\\n")[1:-1]
    fields = dict(line.split(":") for line in lines)
    return sum(int(fields[k].split()[0]) for k in ("Private_Clean", "Private_Dirty")) / 1000

before, started = private(), time.perf_counter()
split = open_split(sys.argv[1], "train")
opened = time.perf_counter() - started
n, rng, total = len(split), np.random.default_rng(0), 0
started = time.perf_counter()
for i in rng.integers(n, size=2000):
    row = split.samples[i]
    total += int(split.frames["size"][row["first_frame"] + row["num_frames"] // 2])
    split.key(int(i)), split.labels(int(i)), split.tar_path(int(i))
lookup = (time.perf_counter() - started) / 2000
print(json.dumps({"seconds": opened, "megabytes": private() - before, "lookup": lookup, "n": n}))
"""


def probe(root: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(root)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("videos", "frames"),
    [(2_400, 30), pytest.param(240_000, 300, marks=pytest.mark.slow)],
)
def test_opening_is_fast_and_small(tmp_path, videos, frames):
    synthetic_split(tmp_path, videos, frames)
    found = probe(tmp_path)
    assert found["n"] == videos
    assert found["seconds"] < 1.0
    assert found["megabytes"] < 200
    assert found["lookup"] < 1e-3
