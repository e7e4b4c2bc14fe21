"""Running the entry scripts in tests, and reading the records that they write."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from dsanet.engine.launch.signals import Signals
from dsanet.engine.main import eval_main, run_command, train_main

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
    """The environment without the variables of a launcher that runs the tests."""
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    own = {k: v for k, v in os.environ.items() if k not in launcher and not k.startswith("SLURM_")}
    return own | ENVIRONMENT | more


def launch(*words: object, processes: int = 1, **env: str) -> list[subprocess.Popen[str]]:
    """Start an entry script in this many processes, with the environment that torchrun sets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(processes):
        if processes > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        started.append(
            subprocess.Popen(
                [sys.executable, *map(str, words)],
                cwd=ROOT,
                env=environment(**env),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(
    started: list[subprocess.Popen[str]], timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """Wait for all processes; returns their joined output and the largest exit code."""
    outputs = [process.communicate(timeout=timeout) for process in started]
    code = max(abs(process.returncode) for process in started)
    out, err = ("".join(texts) for texts in zip(*outputs, strict=True))
    return subprocess.CompletedProcess(started[0].args, code, out, err)


def run_script(*words: object, processes: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an entry script to its end."""
    return finish(launch(*words, processes=processes, **env))


def records(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Records of one kind in metrics.jsonl."""
    if not (run / "metrics.jsonl").is_file():
        return []
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def course(run: Path) -> list[tuple[int, list[int], float, float]]:
    """(step, sample ids, loss, gradient norm) of every step."""
    return [(r["step"], r["ids"], r["loss"], r["grad_norm"]) for r in records(run)]


def train_here(*words: object) -> int:
    """Run train.py in this process; returns its exit code."""
    return run_command(lambda: train_main(Signals(), [str(word) for word in words]))


def eval_here(*words: object) -> int:
    """Run eval.py in this process; returns its exit code."""
    return run_command(lambda: eval_main(Signals(), [str(word) for word in words]))
