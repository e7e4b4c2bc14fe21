"""Memory, files and threads do not grow in a long training run."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from pathlib import Path

import pytest

from pipelines import AugmentConfig, LoaderConfig, SamplingConfig, TrainLoader

BATCHES, WARM, EVERY = 20_000, 1_000, 500


def resident_mb() -> float:
    """Resident set of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def state() -> dict[str, float]:
    gc.collect()
    return {
        "resident_mb": resident_mb(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"resize": "dali"}], ids=["torch", "dali"])
def test_twenty_thousand_batches(split, settings, record_property):
    loader = TrainLoader(
        split, SamplingConfig(segments=2, frames=2), AugmentConfig(size=32, short_sides=(64, 80)),
        LoaderConfig(threads=2, read_threads=2, **settings), seed=0, batch_size=2,
    )  # fmt: skip
    curve, made, epoch, start = [], 0, 0, time.monotonic()
    while made < BATCHES:
        for batch in loader.epoch(epoch):
            assert batch.clips.shape == (2, 2, 2, 32, 32, 3)
            made += 1
            if made % EVERY == 0:
                curve.append({"batches": made, **state()})
        epoch += 1
    loader.close()
    record_property("curve", json.dumps(curve))
    if folder := os.environ.get("DSANET_SOAK"):
        name = f"soak-{settings.get('resize', 'torch')}.json"
        (Path(folder) / name).write_text(json.dumps(curve, indent=1))
    print(f"{made / (time.monotonic() - start):.0f} batches/s, {curve[1]} ... {curve[-1]}")
    warm = [entry for entry in curve if entry["batches"] >= WARM]
    assert max(e["resident_mb"] for e in warm) < 1.02 * warm[0]["resident_mb"]
    assert len({e["files"] for e in warm}) == 1
    # The two threads of an epoch end a little before it does, or are still to start.
    counts = [e["threads"] for e in warm]
    assert max(counts) - min(counts) <= 2
    assert threading.active_count() < 30
