"""Tools of the tests of slurm/: a booted cluster, a job, a run folder, a few small videos."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from shards import ShardSettings, Source, build_split

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER_SH = Path(__file__).with_name("cluster.sh")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE"}
LIMITS_EVERY = 30  # seconds between Slurm's checks of time limits, from its start

# The smallest run that shows the order of samples. It takes one video at a time, so that BatchNorm
# sees the same videos, and losses agree, on any number of processes.
SETTINGS: dict[str, Any] = {
    "model": "dsa_i3d_r18",
    "network": {"width": 8, "blocks": [1, 1, 1, 1], "stages": [3], "every": 1, "dropout": 0.0},
    "sampling": {"segments": 2, "frames": 2, "stride": 2},
    "augment": {"size": 64},
    "batch": {"videos": 8, "per_gpu": 1},
    "optim": {"lr": 0.005, "reference_videos": 8},
    "schedule": {"epochs": 7, "warmup_epochs": 0, "steps": [2]},
    "validation": {"split": None},
    "checkpoint": {"every_steps": 5},
    "loader": {"threads": 1, "read_threads": 1},
    "log": {"every": 1, "ids": True},
}
VIDEOS = {"train": 96, "val": 10}
STEPS_PER_EPOCH = 12
SHORT = ("--epoch_limit", "3")  # for most runs; the schedule is that of all epochs


@dataclass(frozen=True)
class Cluster:
    """The cluster in `folder`, with the commands of a user and of an operator."""

    folder: Path
    booted: float

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with the cluster's variables and no others of a launcher."""
        removed = ("SLURM_", "SBATCH_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_RANK")
        own = {k: v for k, v in os.environ.items() if not k.startswith(removed)}
        conf = str(self.folder / "etc" / "slurm.conf")
        return own | {"SLURM_CONF": conf, "PYTHON": sys.executable}

    def run(self, *command: object, timeout: float = 60, **environment: str) -> str:
        """Run a command and return its standard output; fail with all its output."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment | environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{command} -> {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def info(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "show", "job", job)))

    def until(self, condition: Callable[[], object], job: str, timeout: float = 90) -> None:
        """Wait until `condition` is true; fail with the job's log if the job ends first."""
        deadline = time.monotonic() + timeout
        while not condition():
            info = self.info(job)
            over = info["JobState"] in ENDED or time.monotonic() > deadline
            if over and not condition():  # it may have become true just before the end
                pytest.fail(f"job {job} is {info['JobState']}\n{self.logs(info)}")
            time.sleep(0.1)

    def wait(self, job: str, state: str = "COMPLETED", timeout: float = 120) -> dict[str, str]:
        """Wait until the job is in `state` and return its fields; fail if it ends in another."""
        self.until(lambda: self.info(job)["JobState"] == state, job, timeout)
        return self.info(job)

    def logs(self, info: dict[str, str]) -> str:
        """The ends of a job's output and of the daemons' logs."""
        files = [Path(info.get("StdOut", "")), *sorted((self.folder / "log").glob("*.log"))]
        tails = [(p, p.read_text(errors="replace")[-3000:]) for p in files if p.is_file()]
        return "\n".join(f"--- {path}\n{tail}" for path, tail in tails)

    def before_limits_are_checked(self, seconds: float) -> None:
        """Sleep until `seconds` before Slurm's next check of time limits."""
        time.sleep((self.booted - seconds - time.time()) % LIMITS_EVERY)

    def local_disk(self, node: int) -> Path:
        """The node's local disk, as a path of this process."""
        daemon = (self.folder / f"slurmd.n{node}.pid").read_text().strip()
        return Path(f"/proc/{daemon}/root{self.folder}/local")

    def kill_node(self, node: int) -> None:
        """Kill everything that runs on the node."""
        self.run(CLUSTER_SH, "kill-node", self.folder, node)

    def boot_node(self, node: int) -> None:
        """Boot the node, with an empty local disk, and wait until it accepts jobs."""
        # Not a pipe: the daemon would keep it open.
        subprocess.run([CLUSTER_SH, "boot-node", self.folder, str(node)], check=True, timeout=30)
        deadline = time.monotonic() + 30
        while "idle" not in self.run("sinfo", "-h", "-p", "gpu", "-n", f"n{node}", "-o", "%T"):
            assert time.monotonic() < deadline, f"node n{node} is not idle"
            time.sleep(0.2)


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path

    @property
    def records(self) -> list[dict[str, Any]]:
        """The step records of metrics.jsonl, without a line that is still being written."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in records if record["kind"] == "train"]

    @property
    def step(self) -> int:
        """The last recorded step; 0 if there is none."""
        return self.records[-1]["step"] if self.records else 0

    def assert_same_training(self, other: Run, epochs: int = 3) -> None:
        """Check that each step ran once, with the samples and (to 1e-3) the losses of `other`."""
        steps = epochs * STEPS_PER_EPOCH
        own, expected = self.records, other.records[:steps]
        assert [r["step"] for r in own] == list(range(1, steps + 1))
        assert [r["ids"] for r in own] == [r["ids"] for r in expected]
        losses = [[r["loss"] for r in records] for records in (own, expected)]
        np.testing.assert_allclose(*losses, rtol=0, atol=1e-3)


@dataclass(frozen=True)
class Job:
    """A training job, its run and its log."""

    cluster: Cluster
    id: str
    run: Run
    log_file: Path

    @property
    def log(self) -> str:
        """The output of the job, of all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.is_file() else ""

    def wait(self, state: str = "COMPLETED") -> dict[str, str]:
        """Wait until the job is in `state` and return its fields."""
        return self.cluster.wait(self.id, state)

    def reach(self, step: int) -> None:
        """Wait until a step is recorded."""
        self.cluster.until(lambda: self.run.step >= step, self.id)

    @property
    def resumed_at(self) -> list[int]:
        """The steps after which the run was resumed."""
        return [int(step) for step in re.findall(r"continuing after step (\d+)", self.log)]


def layout(nodes: int, tasks: int) -> list[str]:
    """Options of sbatch for `nodes` nodes with `tasks` tasks and as many GPUs each."""
    return [f"--nodes={nodes}", f"--ntasks-per-node={tasks}", f"--gpus-per-node={tasks}"]


def write_video(path: Path, seed: int) -> None:
    """Write sixteen frames of noise, 72 x 72 pixels."""
    draws = np.random.default_rng(seed)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=24)
        stream.width = stream.height = 72
        stream.pix_fmt = "yuvj420p"
        for _ in range(16):
            pixels = draws.integers(0, 255, (72, 72, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def write_shards(folder: Path) -> Path:
    """Write a shard set of three classes, with the splits train and val."""
    settings = ShardSettings(short_side=72, workers=1)
    for split, count in VIDEOS.items():
        sources = []
        for i in range(count):
            sources.append(Source(folder / f"{split}{i}.mp4", i % 3, f"{split}{i:03d}"))
            write_video(sources[-1].path, seed=i)
        assert build_split(sources, folder / "shards", split, list("abc"), settings).ok == count
    return folder / "shards"
