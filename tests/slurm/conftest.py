"""A real Slurm, booted once a session, and the run that all runs on it must equal."""

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

NODES = 3


def missing() -> str:
    """Why no cluster can be booted here, or an empty string."""
    if os.geteuid() != 0:
        return "a cluster of network namespaces needs root"
    programs = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare")
    absent = [name for name in programs if shutil.which(name) is None]
    return f"not installed: {' '.join(absent)} (see docs/slurm.md)" if absent else ""


@pytest.fixture(scope="session")
def cluster() -> Iterator[lab.Cluster]:
    """Three nodes n1..n3 of 128 (claimed) cores and 8 (fake) GPUs; partitions gpu and urgent."""
    if reason := missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    folder = Path(tempfile.mkdtemp(prefix="dsanet-", dir="/tmp"))  # sockets: a path of <= 108 bytes
    with open("/run/lock/dsanet-slurm", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ports and namespaces have fixed names
        try:
            boot(folder)
            yield lab.Cluster(folder, booted=time.time())
        finally:
            subprocess.run([lab.CLUSTER_SH, "down", folder], timeout=60, check=False)
            shutil.rmtree(folder, ignore_errors=True)


def boot(folder: Path) -> None:
    """Start the cluster; fails with what it said."""
    with open(folder / "boot.log", "w") as log:  # no pipe: the daemons would hold it open
        # Who holds the lock owns the machine's cluster; one that is there now was left behind.
        subprocess.run([lab.CLUSTER_SH, "clean"], stdout=log, stderr=log, timeout=60, check=False)
        command = [lab.CLUSTER_SH, "up", folder, str(NODES)]
        done = subprocess.run(command, stdout=log, stderr=log, timeout=60, check=False)
    assert done.returncode == 0, (folder / "boot.log").read_text()


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options of train.py that every run here has: the shards and lab.SETTINGS as a file."""
    folder = tmp_path_factory.mktemp("data")
    settings = folder / "tiny.yaml"
    settings.write_text(yaml.safe_dump(lab.SETTINGS))
    model = lab.SETTINGS["model"]
    return ("--data", lab.write_shards(folder), "--config", settings, "--model", model)


@pytest.fixture(scope="session")
def undisturbed(options: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> lab.Run:
    """One process, without Slurm, never interrupted."""
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
    """Queues slurm/k400.sh: submit(folder, nodes, tasks, *options of sbatch, extra=train.py's)."""

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
    """The same with the test's own folder."""
    return functools.partial(submit, tmp_path)
