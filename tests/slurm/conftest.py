"""A real Slurm, booted once per session, and an uninterrupted run to compare with."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

pytest.register_assert_rewrite("tests.slurm.lab")

from tests.slurm import lab  # noqa: E402
from tests.slurm.fakes import batch  # noqa: E402, F401

NODES = 3


def reason_not_to_boot() -> str:
    """Why no cluster can be booted here, or an empty string."""
    if os.geteuid() != 0:
        return "a cluster of network namespaces needs root"
    programs = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare")
    absent = [name for name in programs if shutil.which(name) is None]
    return f"not installed: {' '.join(absent)} (see docs/slurm.md)" if absent else ""


@pytest.fixture(scope="session")
def cluster() -> Iterator[lab.Cluster]:
    """Three nodes n1..n3 of 128 (claimed) cores and 8 (fake) GPUs; partitions gpu and urgent."""
    if reason := reason_not_to_boot():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    # The path of a socket has at most 108 bytes, so the folder's is short.
    folder = Path(tempfile.mkdtemp(prefix="dsanet-", dir="/tmp"))
    with open("/run/lock/dsanet-slurm", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ports and namespaces have fixed names
        try:
            boot(folder)
            yield lab.Cluster(folder, booted=time.time())
        finally:
            subprocess.run([lab.CLUSTER_SH, "down", folder], timeout=60, check=False)
            shutil.rmtree(folder, ignore_errors=True)


def boot(folder: Path) -> None:
    """Start the cluster; on failure, show what cluster.sh printed."""
    with open(folder / "boot.log", "w") as log:  # not a pipe: the daemons would keep it open
        # This process holds the lock, so a cluster that runs now was left by a crashed test run.
        subprocess.run([lab.CLUSTER_SH, "clean"], stdout=log, stderr=log, timeout=60, check=False)
        command = [lab.CLUSTER_SH, "up", folder, str(NODES)]
        done = subprocess.run(command, stdout=log, stderr=log, timeout=60, check=False)
    assert done.returncode == 0, (folder / "boot.log").read_text()


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options of train.py for every run: the shards, and lab.SETTINGS as a file."""
    folder = tmp_path_factory.mktemp("data")
    settings = folder / "tiny.yaml"
    settings.write_text(yaml.safe_dump(lab.SETTINGS))
    model = lab.SETTINGS["model"]
    return ("--data", lab.write_shards(folder), "--config", settings, "--model", model)


@pytest.fixture(scope="session")
def uninterrupted(options: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> lab.Run:
    """A run in one process, without Slurm."""
    run = lab.Run(tmp_path_factory.mktemp("one") / "run")
    words = ("train.py", "--recipe", "kinetics400", "--out", run.folder, *options)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=lab.REPOSITORY,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="session")
def submit(cluster: lab.Cluster, options: tuple[object, ...]) -> Callable[..., lab.Job]:
    """Queue slurm/k400.sh: submit(folder, nodes, tasks, *sbatch options, extra=options)."""

    def queue(
        folder: Path, nodes: int, tasks: int, *sbatch: object, extra: tuple[object, ...] = lab.SHORT
    ) -> lab.Job:
        log, run = folder / "log", folder / "run"
        words = (*lab.layout(nodes, tasks), f"--output={log}", *sbatch, "slurm/k400.sh")
        job = cluster.run("sbatch", "--parsable", *words, "--out", run, *options, *extra)
        return lab.Job(cluster, job.strip(), lab.Run(run), log)

    return queue


@pytest.fixture
def train(submit: Callable[..., lab.Job], tmp_path: Path) -> Callable[..., lab.Job]:
    """Like `submit`, in the test's own folder."""
    return functools.partial(submit, tmp_path)
