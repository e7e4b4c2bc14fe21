"""Numbers that launchers put into the environment; a wrong one is named with its remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsanet.engine.launch.rendezvous import master_address, ranks_from_environment
from dsanet.engine.lock_owner import this_process
from dsanet.variables import VariableError, read_number
from pipelines.decode.decoder import usable_cores
from pipelines.read.staging import node_ranks
from tests.integration.scripts import train_here

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
SLURM = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
READERS: list[tuple[Callable[[], Any], dict[str, str], str]] = [
    *[(ranks_from_environment, TORCHRUN, name) for name in TORCHRUN],
    *[(ranks_from_environment, SLURM, name) for name in SLURM],
    (master_address, {}, "SLURM_JOB_ID"),
    (usable_cores, {}, "SLURM_CPUS_PER_TASK"),
    (usable_cores, {}, "LOCAL_WORLD_SIZE"),
    (lambda: node_ranks(0), {}, "LOCAL_RANK"),
    (lambda: node_ranks(0), {}, "SLURM_LOCALID"),
    (lambda: node_ranks(0), {}, "LOCAL_WORLD_SIZE"),
    (lambda: node_ranks(0), {}, "SLURM_NTASKS_PER_NODE"),
    (this_process, {}, "SLURM_RESTART_COUNT"),
]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without the variables of launchers."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "MASTER_")) or name in (*TORCHRUN, "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("value", ["four", "-1", "4(x2)", "1.0", "\u0664", "9" * 30, "a\nb\x1b[2J"])
@pytest.mark.parametrize(("read", "others", "name"), READERS)
def test_a_wrong_value_is_named_in_one_line(
    bare: pytest.MonkeyPatch,
    read: Callable[[], Any],
    others: dict[str, str],
    name: str,
    value: str,
) -> None:
    for variable, number in (others | {name: value}).items():
        bare.setenv(variable, number)
    with pytest.raises(VariableError) as caught:
        read()
    message = str(caught.value)
    assert message.startswith(f"the environment variable {name} must be a whole number")
    assert "unset" in message
    assert message.isprintable()


def test_a_rank_outside_of_the_world_is_refused(bare: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "2", "WORLD_SIZE": "2"}.items():
        bare.setenv(name, value)
    with pytest.raises(VariableError, match="RANK must be less than WORLD_SIZE, which is 2"):
        ranks_from_environment()


def test_an_empty_variable_is_one_that_is_not_set(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("SLURM_RESTART_COUNT", "")
    assert this_process().restarts == 0
    bare.setenv("RANK", "")
    bare.setenv("WORLD_SIZE", "")
    with pytest.raises(VariableError, match="RANK must be"):
        ranks_from_environment()
    bare.setenv("RANK", " 3 ")
    assert read_number("RANK") == 3


def test_train_ends_with_exit_code_2(
    bare: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bare.setenv("RANK", "0")
    bare.setenv("WORLD_SIZE", "two")
    words = ("--data", tmp_path, "--model", "tsn_r18", "--out", tmp_path / "run")
    assert train_here(*words) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: the environment variable WORLD_SIZE must be")
    assert error.count("\n") == 1
