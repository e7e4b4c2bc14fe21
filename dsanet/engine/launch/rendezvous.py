"""How the processes of a run find each other: a store at MASTER_ADDR:MASTER_PORT."""

from __future__ import annotations

import datetime
import os
import socket
import time
from collections import deque

import torch.distributed as dist

from dsanet.engine.errors import EngineError, UsageError

TICK = 0.1  # seconds between two looks at who is there
PATIENCE = 5.0  # seconds for one connection


def launched() -> tuple[int, int, int]:
    """(rank, world size, local rank) as torchrun or srun say it; (0, 1, 0) for a plain start."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0))
    # SLURM_NTASKS also stands in a batch script that runs python without srun: only a step counts.
    if "SLURM_STEP_NUM_TASKS" in env and "SLURM_PROCID" in env:
        tasks = int(env["SLURM_STEP_NUM_TASKS"])
        return int(env["SLURM_PROCID"]), tasks, int(env.get("SLURM_LOCALID", 0))
    return 0, 1, 0


def find_address() -> tuple[str, int]:
    """MASTER_ADDR and MASTER_PORT, filled in where one machine makes them obvious.

    Raises:
        UsageError: when several nodes are in play and nobody said where rank 0 is.
    """
    env = os.environ
    if "MASTER_ADDR" not in env:
        if env.get("SLURM_STEP_NUM_NODES", "1") != "1":
            raise UsageError(
                "MASTER_ADDR is not set: export the first host of the job before srun, as "
                "slurm/common.sh does"
            )
        env["MASTER_ADDR"] = "127.0.0.1"
    # From the job's id, so that two jobs on a node do not collide, and below the ports that
    # clients are given.
    port = env.setdefault("MASTER_PORT", str(10000 + int(env.get("SLURM_JOB_ID", 19500)) % 20000))
    if not (port.isdecimal() and 0 < int(port) < 2**16):
        raise UsageError(f"MASTER_PORT is {port!r}: export a number from 1 to 65535")
    return env["MASTER_ADDR"], int(port)


def meet(rank: int, size: int, minutes: float) -> dist.Store:
    """The store that all processes of the run have joined.

    Raises:
        EngineError: when they have not all come within so many minutes.
    """
    host, port = find_address()
    # torchrun has its own store there; otherwise rank 0 opens one.
    hosting = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    limit = datetime.timedelta(minutes=minutes)
    deadline = time.monotonic() + limit.total_seconds()
    try:
        if not hosting:
            _wait_for_host(host, port, deadline)
        store = dist.TCPStore(
            host, port, size, hosting, limit, wait_for_workers=False, multi_tenant=hosting
        )
        store.set(_key(rank), "")
        missing = _wait_for_all(store, size, deadline)
    except (RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(".")
        raise EngineError(_told(rank, size, minutes, reason)) from error
    if missing:
        raise EngineError(_told(rank, size, minutes, f"{_named(missing)} did not come"))
    return store


def _key(rank: int) -> str:
    return f"dsanet/here/{rank}"


def _wait_for_host(host: str, port: int, deadline: float) -> None:
    """Return once somebody listens there; torch would wait, too, but print a stack a second.

    Raises:
        OSError: why nobody could be reached.
    """
    while True:
        try:
            return socket.create_connection((host, port), PATIENCE).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(TICK)


def _wait_for_all(store: dist.Store, size: int, deadline: float) -> list[int]:
    """Wait until all ranks have come; those that have not by the deadline."""
    missing = deque(range(size))
    while missing:
        if store.check([_key(missing[0])]):
            missing.popleft()
        elif time.monotonic() > deadline:
            return [rank for rank in missing if not store.check([_key(rank)])]
        else:
            time.sleep(TICK)
    return []


def _named(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:16])) + (", ..." if len(ranks) > 16 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


def _told(rank: int, size: int, minutes: float, why: str) -> str:
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return (
        f"rank {rank} of {size}, on {socket.gethostname()}, has not met the others at {where} "
        f"(MASTER_ADDR:MASTER_PORT): {why}. Usual causes: a process that failed at its start, as "
        "its own error says; MASTER_ADDR is not the host of rank 0, or a firewall is between; "
        "another job has the port; fewer processes were started than the launcher says. The limit "
        f"was {60 * minutes:g} s (rendezvous_minutes)"
    )
