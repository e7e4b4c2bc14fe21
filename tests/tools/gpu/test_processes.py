"""A command ends at its limit, and nothing that it started outlives it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from gpu.processes import Ended, run_limited


def run(script: str, seconds: float, folder: Path) -> Ended:
    return run_limited(
        ["sh", "-c", script], seconds, folder / "log", dict(os.environ), stdout=subprocess.DEVNULL
    )


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def assert_ended(pid: int) -> None:
    end = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < end, f"process {pid} still runs"
        time.sleep(0.05)


@pytest.mark.parametrize("child", ["sleep 600", "setsid sleep 600"])
def test_a_hanging_command_is_stopped_with_its_children(child: str, tmp_path: Path) -> None:
    """Also with one that has a session of its own, as pytest's have."""
    ended = run(f"{child} & echo $! >&2; wait", 1.0, tmp_path)
    assert ended.code is None
    assert 1.0 <= ended.seconds < 60
    assert_ended(int(ended.output))


@pytest.mark.parametrize("end", ["exit 3", "kill -SEGV $$"])
def test_what_a_command_leaves_behind_is_ended(end: str, tmp_path: Path) -> None:
    ended = run(f"sleep 600 & echo $! >&2; {end}", 60.0, tmp_path)
    assert ended.code == (3 if end == "exit 3" else -11)
    assert_ended(int(ended.output))


def test_the_end_of_the_output_is_kept(tmp_path: Path) -> None:
    ended = run("seq 100000 >&2; echo last >&2", 60.0, tmp_path)
    assert ended.code == 0
    assert ended.output.endswith("100000\nlast\n")
    assert len(ended.output) <= 6000
