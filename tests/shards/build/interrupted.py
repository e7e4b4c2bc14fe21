"""A build in a process of its own, to be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from shards import ShardSettings, Source

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = ShardSettings(workers=2, tar_samples=2)
SCRIPT = """
import json, sys
from pathlib import Path
from shards import ShardSettings, Source, build_split
sources = [Source.from_json(s) for s in json.loads(Path(sys.argv[1]).read_text())]
settings = ShardSettings(workers=2, tar_samples=2)
build_split(sources, Path(sys.argv[2]), "train", ["x"], settings)
"""


def start_build(sources: list[Source], folder: Path) -> subprocess.Popen[bytes]:
    """Start to build the split `folder`/out/train with SETTINGS."""
    listing = folder / "list.json"
    listing.write_text(json.dumps([source.to_json() for source in sources]))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(listing), str(folder / "out")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their names."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
