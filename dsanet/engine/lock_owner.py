"""Who holds the lock of a folder, and whether that process is still there."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dsanet.variables import read_number
from shards.format.files import read_regular

# Ten renewals: a file server or a machine that pauses for a minute or two does not cost the lock.
STALE_SECONDS = 300.0
MAX_LOCK = 1 << 16  # bytes


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        token: differs for each time that a lock is taken.
        machine: boot and process namespace: where `pid` means a process.
        started: start of the process in clock ticks since the boot; tells apart two of one pid.
        job, restarts: of SLURM; an empty string and 0 without it.
        time: when the lock was taken.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: str
    user: str
    command: str
    job: str
    restarts: int
    time: str

    def __str__(self) -> str:
        job = f", Slurm job {self.job}" if self.job else ""
        return (
            f"{self.command} of {self.user} on {self.host} (pid {self.pid}{job}, since {self.time})"
        )


def this_process() -> Owner:
    """This process as the owner of a new lock."""
    env = os.environ
    job = env.get("SLURM_JOB_ID", "")
    if job and "SLURM_CLUSTER_NAME" in env:
        job = f"{job} of {env['SLURM_CLUSTER_NAME']}"
    return Owner(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=_start_of(os.getpid()) or "",
        user=_user(),
        command=Path(sys.argv[0]).name or "python",
        job=job,
        restarts=read_number("SLURM_RESTART_COUNT", 0),
        time=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        return f"user {os.getuid()}"


def _start_of(pid: int) -> str | None:
    """When a process of this machine was started; None if it has ended."""
    try:
        # The name, in brackets, may hold spaces and brackets.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def why_stale(owner: Owner | None, age: float, me: Owner) -> str | None:
    """Why a lock no longer counts; None if it does.

    owner: as the lock says; None where it is not readable.
    age: seconds since its last renewal.
    """
    if owner:
        if owner.job and owner.job == me.job and owner.restarts < me.restarts:
            return "its job was requeued as this one"
        if owner.machine == me.machine and _start_of(owner.pid) != owner.started:
            return "its process has ended"
    if age > STALE_SECONDS:
        return f"it was not renewed for {age:.0f} s"
    return None


def read_owner(path: Path) -> Owner | None:
    """The owner that a lock names; None if the file is damaged or missing.

    Raises:
        OSError: if it cannot be read, or is not a regular file.
    """
    try:
        owner = Owner(**json.loads(read_regular(path, MAX_LOCK)))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    values = asdict(owner)
    numbers = [values.pop(name) for name in ("pid", "restarts")]
    valid = all(type(n) is int for n in numbers) and all(
        isinstance(t, str) for t in values.values()
    )
    return owner if valid else None
