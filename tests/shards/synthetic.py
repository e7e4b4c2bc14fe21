"""An index as large as one likes, without the videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards import ShardSettings
from shards.index import ARRAYS
from shards.manifest import FORMAT, FORMAT_VERSION, write_json


def synthetic_split(root: Path, videos: int, frames: int, per_tar: int = 64) -> None:
    """Write `root`/train: the side files of a set of `videos` samples of `frames` frames each."""
    folder = root / "train"
    folder.mkdir(parents=True)
    count = -(-videos // per_tar)
    samples = np.zeros(videos, ARRAYS["samples"])
    samples["tar"] = np.arange(videos) // per_tar
    samples["offset"], samples["size"] = 512, 3_000_000
    samples["first_frame"] = np.arange(videos) * frames
    samples["num_frames"], samples["width"], samples["height"] = frames, 340, 256
    samples["fps"], samples["label"] = 30, np.arange(videos) % 400
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
        {"name": f"train-{n:06d}.tar", "size": 1, "sha256": "0" * 64, "samples": per_tar}
        for n in range(count)
    ]
    counts = {"samples": videos, "frames": videos * frames}
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "split": "train", "counts": counts}
    classes = [f"class {n}" for n in range(400)]
    more = {"classes": classes, "settings": ShardSettings().recorded(), "tars": tars}
    write_json(folder / "manifest.json", manifest | more)
