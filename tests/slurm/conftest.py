"""A real Slurm for the tests: three nodes in namespaces of this machine, booted once a session."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER_SH = Path(__file__).with_name("cluster.sh")
NODES = 3
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE"}


def missing() -> str:
    """Why no cluster can be booted here, or an empty string."""
    if os.geteuid() != 0:
        return "a cluster of network namespaces needs root"
    programs = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare")
    absent = [name for name in programs if shutil.which(name) is None]
    return f"not installed: {' '.join(absent)} (see docs/slurm.md)" if absent else ""


@dataclass(frozen=True)
class Cluster:
    """The commands of a user and of an operator, on the cluster that lives in `folder`."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment without Slurm's own variables, and with the cluster's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        conf = str(self.folder / "etc" / "slurm.conf")
        return kept | {"SLURM_CONF": conf, "PYTHON": sys.executable}

    def run(self, *command: object, timeout: float = 30, **environment: str) -> str:
        """Standard output of a command; fails with its standard error."""
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

    def submit(self, *command: object, **environment: str) -> str:
        """The id of the job that `sbatch COMMAND` makes."""
        return self.run("sbatch", "--parsable", *command, **environment).strip()

    def info(self, job: str) -> dict[str, str]:
        """What `scontrol show job` knows."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "show", "job", job)))

    def wait(self, job: str, state: str = "COMPLETED", timeout: float = 120) -> dict[str, str]:
        """The job's record once it is in `state`; fails if it ends in another one."""
        deadline = time.monotonic() + timeout
        while (info := self.info(job))["JobState"] != state:
            if info["JobState"] in ENDED or time.monotonic() > deadline:
                pytest.fail(f"job {job} is {info['JobState']}, wanted {state}\n{self.report(info)}")
            time.sleep(0.2)
        return info

    def until(self, condition: Callable[[], object], job: str, timeout: float = 90) -> None:
        """Return as soon as `condition` holds; fails with the log of `job`."""
        deadline = time.monotonic() + timeout
        while not condition():
            info = self.info(job)
            if info["JobState"] in ENDED or time.monotonic() > deadline:
                pytest.fail(f"waited in vain on {job}, {info['JobState']}\n{self.report(info)}")
            time.sleep(0.1)

    def report(self, info: dict[str, str]) -> str:
        """The ends of a job's output and of the controller's log."""
        files = [Path(info.get("StdOut", "")), *sorted((self.folder / "log").glob("*.log"))]
        tails = [
            (path, path.read_text(errors="replace")[-3000:]) for path in files if path.is_file()
        ]
        return "\n".join(f"--- {path}\n{tail}" for path, tail in tails)

    def kill_node(self, node: int) -> None:
        """Everything that runs on the node is killed at once."""
        self.run(CLUSTER_SH, "kill-node", self.folder, node)

    def boot_node(self, node: int) -> None:
        """The node comes back, its local disk empty."""
        self.run(CLUSTER_SH, "boot-node", self.folder, node)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes n1..n3 of 128 (claimed) cores and 8 (fake) GPUs; partitions gpu and urgent."""
    if reason := missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    folder = Path(tempfile.mkdtemp(prefix="dsanet-", dir="/tmp"))  # sockets: a path of <= 108 bytes
    with open("/run/lock/dsanet-slurm", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ports and namespaces have fixed names
        boot = [CLUSTER_SH, "up", folder, str(NODES)]
        try:
            # The daemons inherit the standard streams: a pipe would never see its end.
            with open(folder / "boot.log", "w") as log:
                up = subprocess.run(boot, stdout=log, stderr=log, timeout=60, close_fds=True)
            assert up.returncode == 0, (folder / "boot.log").read_text()
            yield Cluster(folder)
        finally:
            subprocess.run([CLUSTER_SH, "down", folder], timeout=60, check=False)
            shutil.rmtree(folder, ignore_errors=True)
