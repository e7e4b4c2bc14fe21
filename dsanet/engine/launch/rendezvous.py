"""How the processes of a run find each other: a store at MASTER_ADDR:MASTER_PORT."""

from __future__ import annotations

import datetime
import os
import socket
import time
from collections import deque

import torch.distributed as dist

from dsanet.engine.errors import EngineError, UsageError
from dsanet.variables import VariableError, read_number

POLL_INTERVAL = 0.1  # seconds
CONNECT_TIMEOUT = 5.0  # seconds


def ranks_from_environment() -> tuple[int, int, int]:
    """(rank, world size, local rank) as torchrun or srun set them; (0, 1, 0) without either.

    Raises:
        VariableError: when a variable holds something else than a number, or the rank is none of
            the world.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return _read_ranks("RANK", "WORLD_SIZE", "LOCAL_RANK")
    # SLURM_NTASKS is also set in a batch script that runs python without srun, these two are not.
    if "SLURM_STEP_NUM_TASKS" in env and "SLURM_PROCID" in env:
        return _read_ranks("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    return 0, 1, 0


def _read_ranks(rank_name: str, size_name: str, local_name: str) -> tuple[int, int, int]:
    rank, size = read_number(rank_name), read_number(size_name, least=1)
    if rank >= size:
        raise VariableError(
            f"the environment variable {rank_name} must be less than {size_name}, which is {size}, "
            f"got '{rank}'; correct or unset both (torchrun or srun sets them)"
        )
    return rank, size, read_number(local_name, 0)


def master_address() -> tuple[str, int]:
    """MASTER_ADDR and MASTER_PORT; on one node they are set if they are not.

    Raises:
        UsageError: without MASTER_ADDR on several nodes, or for a port that is not one.
        VariableError: when SLURM_JOB_ID is not a number.
    """
    env = os.environ
    if "MASTER_ADDR" not in env:
        if env.get("SLURM_STEP_NUM_NODES", "1") != "1":
            raise UsageError(
                "MASTER_ADDR is not set; export the first host of the job before srun, as "
                "slurm/common.sh does"
            )
        env["MASTER_ADDR"] = "127.0.0.1"
    # From the job's id, so that two jobs on a node do not collide, and below the range from which
    # the kernel takes ports for outgoing connections.
    port = env.setdefault("MASTER_PORT", str(10000 + read_number("SLURM_JOB_ID", 19500) % 20000))
    if not (port.isdecimal() and 0 < int(port) < 2**16):
        raise UsageError(f"MASTER_PORT must be a number from 1 to 65535, got {port!r}")
    return env["MASTER_ADDR"], int(port)


def open_store(rank: int, size: int, minutes: float) -> dist.Store:
    """Open the key-value store of the run, and wait until all its processes have.

    Raises:
        EngineError: when one has not within this many minutes.
    """
    host, port = master_address()
    # torchrun serves a store at this address; without torchrun rank 0 does.
    serving = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    limit = datetime.timedelta(minutes=minutes)
    deadline = time.monotonic() + limit.total_seconds()
    try:
        if not serving:
            _wait_for_server(host, port, deadline)
        store = dist.TCPStore(
            host, port, size, serving, limit, wait_for_workers=False, multi_tenant=serving
        )
        store.set(_key(rank), "")
        missing = _wait_for_ranks(store, size, deadline)
    except (RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(".")
        raise EngineError(_failure(rank, size, minutes, reason)) from error
    if missing:
        reason = f"{_list_ranks(missing)} did not connect"
        raise EngineError(_failure(rank, size, minutes, reason))
    return store


def _key(rank: int) -> str:
    return f"dsanet/here/{rank}"


def _wait_for_server(host: str, port: int, deadline: float) -> None:
    """Wait until a server listens at the address.

    torch would wait as well, but print a stack trace every second.

    Raises:
        OSError: of the last attempt, after the deadline.
    """
    while True:
        try:
            return socket.create_connection((host, port), CONNECT_TIMEOUT).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_INTERVAL)


def _wait_for_ranks(store: dist.Store, size: int, deadline: float) -> list[int]:
    """Wait for all ranks; returns those that have not connected by the deadline."""
    missing = deque(range(size))
    while missing:
        if store.check([_key(missing[0])]):
            missing.popleft()
        elif time.monotonic() > deadline:
            return [rank for rank in missing if not store.check([_key(rank)])]
        else:
            time.sleep(POLL_INTERVAL)
    return []


def _list_ranks(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:16])) + (", ..." if len(ranks) > 16 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


def _failure(rank: int, size: int, minutes: float, reason: str) -> str:
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return (
        f"rank {rank} of {size}, on {socket.gethostname()}, could not meet the other processes at "
        f"{address} (MASTER_ADDR:MASTER_PORT): {reason}. Usual causes: a process failed at its "
        "start (see its own error); MASTER_ADDR is not the host of rank 0; a firewall; another job "
        "uses the port; fewer processes were started than the launcher announced. The limit is "
        f"{60 * minutes:g} s (rendezvous_minutes)"
    )
