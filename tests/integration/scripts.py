"""How the integration tests run the entry scripts and read what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dsanet.engine.entry import eval_main, guarded, train_main
from dsanet.engine.signals import Signals

ROOT = Path(__file__).resolve().parents[2]
TINY = """
model: dsa_i3d_r18
network: {width: 8, blocks: [1, 2, 2, 1], dropout: 0.5}
sampling: {segments: 2, frames: 2, stride: 2}
augment: {size: 32, short_sides: [32, 36]}
batch: {videos: 4, per_gpu: 2}
optim: {lr: 0.02, reference_videos: 4}
schedule: {epochs: 2, kind: cosine, warmup_epochs: 1}
loader: {threads: 1, read_threads: 1}
log: {every: 1, ids: true}
"""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


def environment(**more: str) -> dict[str, str]:
    """The test's environment without the traces of a launcher around it."""
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {k: v for k, v in os.environ.items() if k not in launcher and not k.startswith("SLURM_")}
    return kept | ENVIRONMENT | more


def script(*words: object, processes: int = 1) -> list[str]:
    """Command line of an entry script, under torchrun for several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *(launcher if processes > 1 else []), *map(str, words)]


def run_script(*words: object, processes: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an entry script to its end, at most three minutes."""
    command = script(*words, processes=processes)
    return subprocess.run(
        command, cwd=ROOT, env=environment(**env), capture_output=True, text=True, timeout=180
    )


def records(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Records of one kind in metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def course(run: Path) -> list[tuple[int, list[int], float, float]]:
    """(step, sample ids, loss, gradient norm) of every step."""
    return [(r["step"], r["ids"], r["loss"], r["grad_norm"]) for r in records(run)]


def train_here(*words: object) -> int:
    """train.py within this process: its exit code."""
    return guarded(lambda: train_main(Signals(), [str(word) for word in words]))


def eval_here(*words: object) -> int:
    """eval.py within this process: its exit code."""
    return guarded(lambda: eval_main([str(word) for word in words]))
