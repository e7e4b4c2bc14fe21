"""Runs a command with a time limit, and ends it with all processes that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit status; negative: the signal that ended it; None: it was stopped at its limit.
        seconds: how long it ran.
        output: the end of what it wrote to stderr.
    """

    code: int | None
    seconds: float
    output: str


def run_limited(
    command: Sequence[str],
    seconds: float,
    log: Path,
    env: dict[str, str],
    stdout: int | None = None,
    cwd: Path | None = None,
    tail: int = 6000,
) -> Ended:
    """Run a command for at most `seconds`; its stderr goes to `log`.

    stdout: as in `subprocess.Popen`; None: to the screen. tail: characters of `Ended.output`.

    It gets a session of its own. At its end, however it comes about, the processes that it has left
    behind are ended too.
    """
    start = time.perf_counter()
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors, env=env, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
        ended = False
        try:
            ended = _ends_within(process.pid, seconds)
        finally:  # also when this process is interrupted
            end_tree(process.pid)  # not waited for yet, so that no other process has its number
            code = process.wait()
    text = log.read_bytes()[-tail:].decode(errors="replace")
    return Ended(code if ended else None, time.perf_counter() - start, text)


def _ends_within(pid: int, seconds: float) -> bool:
    """Wait for the end of a child without taking its exit status."""
    end = time.monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def end_tree(pid: int) -> None:
    """Kill a process, its descendants, and its process group, which orphans stay in."""
    for child in [pid, *descendants(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Processes that `pid` has started, directly or not, and that still have their parents."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for child in found:  # grows while it is read
        found += children.get(child, [])
    return found
