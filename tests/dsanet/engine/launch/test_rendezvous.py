"""Rank from the environment, and the rendezvous of processes with its errors."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dsanet.engine import EngineError, UsageError
from dsanet.engine.launch.rendezvous import master_address, open_store, ranks_from_environment
from tests.integration.scripts import train_here

SECOND = 1 / 60


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without the variables of launchers."""
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "")  # so that it is removed after the test
        monkeypatch.delenv(name)
    return monkeypatch


def setenv(patch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        patch.setenv(name, str(value))


def test_who_this_process_is(bare: pytest.MonkeyPatch) -> None:
    assert ranks_from_environment() == (0, 1, 0)
    # A batch script without srun: the job has tasks, but this process is none of them.
    setenv(bare, SLURM_NTASKS=8, SLURM_PROCID=0, SLURM_JOB_ID=7)
    assert ranks_from_environment() == (0, 1, 0)
    setenv(bare, SLURM_STEP_NUM_TASKS=8, SLURM_PROCID=5, SLURM_LOCALID=1)
    assert ranks_from_environment() == (5, 8, 1)
    # torchrun within srun counts, not the one task that started it.
    setenv(bare, RANK=3, WORLD_SIZE=4, LOCAL_RANK=3)
    assert ranks_from_environment() == (3, 4, 3)


def test_address_and_port_of_rank_0(bare: pytest.MonkeyPatch) -> None:
    setenv(bare, SLURM_STEP_NUM_NODES=2)
    with pytest.raises(UsageError, match="MASTER_ADDR is not set"):
        master_address()
    setenv(bare, SLURM_STEP_NUM_NODES=1, SLURM_JOB_ID=60001)
    assert master_address() == ("127.0.0.1", 10001)
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("127.0.0.1", "10001")
    setenv(bare, MASTER_PORT="ftp")
    with pytest.raises(UsageError, match=r"MASTER_PORT must be .*got 'ftp'"):
        master_address()


@pytest.fixture
def port(bare: pytest.MonkeyPatch) -> int:
    """A free port of this machine, as MASTER_PORT."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    setenv(bare, MASTER_ADDR="127.0.0.1", MASTER_PORT=number)
    return number


def test_all_processes_get_the_same_store_whichever_comes_first(port: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        late = [pool.submit(open_store, rank, 3, 10 * SECOND) for rank in (2, 1)]
        time.sleep(0.3)
        stores = [open_store(0, 3, 10 * SECOND), *(future.result() for future in late)]
    stores[0].set("key", "value")
    assert [store.get("key") for store in stores] == [b"value"] * 3


def test_without_a_server_the_error_names_address_reason_and_limit(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    with pytest.raises(EngineError) as error:
        open_store(1, 4, SECOND)
    assert 0.9 < time.monotonic() - began < 30  # it waits for the limit
    for word in (f"127.0.0.1:{port}", "rank 1 of 4", "Usual causes", "limit is 1 s"):
        assert word in str(error.value)
    assert capfd.readouterr().err == ""  # torch prints nothing


def test_missing_ranks_are_named(port: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(open_store, 2, 4, 2 * SECOND)
        with pytest.raises(EngineError, match=r"rank 0 of 4.*: ranks 1, 3 did not connect"):
            open_store(0, 4, SECOND)
        with pytest.raises(EngineError, match="rank 2 of 4"):
            other.result()


def test_a_port_in_use_is_reported_at_once(port: int) -> None:
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        began = time.monotonic()
        with pytest.raises(EngineError, match=f"127.0.0.1:{port}.*another job uses the port"):
            open_store(0, 2, 100 * SECOND)
        assert time.monotonic() - began < 50  # it does not wait for the limit


def test_train_reports_a_failed_rendezvous_in_one_line(
    port: int, bare: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    setenv(bare, RANK=1, WORLD_SIZE=2, LOCAL_RANK=1)
    words = ("--data", "d", "--out", "o", "--recipe", "demo", "--runtime.device", "cpu")
    assert train_here(*words, "--runtime.rendezvous_minutes", 0.01) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(
        f"error: rank 1 of 2, on {socket.gethostname()}, could not meet the other processes"
    )
