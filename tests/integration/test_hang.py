"""A disk that never answers: the command ends within its limit, and says where it waited."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.scripts import ROOT, environment

# A command that trains on nothing: it takes batches. `hang` waits in the kernel for ever, as a
# call to a dead mount does; the one of PyDLL keeps the interpreter's lock, as a page fault does.
SCRIPT = """
import ctypes, os, sys, time
from pathlib import Path
from dsanet.engine.launch.signals import Signals
from dsanet.engine.main import run_command
from pipelines import *
from pipelines import feeder, hang_limits
from pipelines.read import open_files
from pipelines.read.frames import FrameReader
from pipelines.resources import LoaderResources

case, root = sys.argv[1:]
hang_limits.GRACE = 3.0
feeder.END_PATIENCE = 1.0
never, _ = os.pipe()
signals = Signals().install()

def wait(*_, **__):
    print("waiting", flush=True)
    os.read(never, 1)

def freeze(*_, **__):
    print("waiting", flush=True)
    ctypes.PyDLL(None).pause()

def main():
    config = LoaderConfig(threads=1, read_threads=2, hang=0 if case == "signal" else 2)
    if case == "stat":
        os.stat = wait
    if case == "signal":
        LoaderResources.close = wait  # the error, then, cannot be printed any more
    split = open_data(root, "train", config)
    loader = TrainLoader(split, SamplingConfig(), AugmentConfig(size=32, short_sides=(64, 80)),
                         config, seed=5, batch_size=4)
    loader.ending = lambda: signals.ending
    if case in ("open", "signal"):
        open_files.open_descriptor = wait
    if case == "frozen":
        FrameReader.pread = freeze
    try:
        next(loader.epoch(0))
    finally:
        loader.close()
    return 0

sys.exit(run_command(main))
"""
CASES = {  # what hangs -> what the output names
    "open": "in _open_file",
    "frozen": "in freeze",
    "stat": "in open_descriptor",
    "signal": "in _open_file",
}


@pytest.fixture(scope="module")
def commands(small_shards: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The commands of all cases, started at once."""
    started = {
        case: subprocess.Popen(
            [sys.executable, "-c", SCRIPT, case, str(small_shards)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for case in CASES
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("case", CASES)
def test_a_hang_ends_the_command_within_its_limit(
    commands: dict[str, subprocess.Popen[str]], case: str
) -> None:
    process = commands[case]
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    began = time.monotonic()
    if case == "signal":
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert time.monotonic() - began < 30
    assert CASES[case] in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert ("loader-read-0: reading " in err) == (case in ("open", "signal"))
    if case == "open":
        assert len(errors) == 1
        assert "after loader.hang 2 s" in errors[0]
    else:
        assert errors == []
        assert "Timeout (" in err
    assert "Traceback" not in err


def test_a_limit_that_is_kept_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsanet.engine.main import run_command
    from pipelines import hang_limits

    monkeypatch.setattr(hang_limits, "GRACE", 0.05)

    def main() -> int:
        with hang_limits.stacks_after(600), hang_limits.time_limit(0.05):
            pass
        with hang_limits.time_limit(0):
            time.sleep(0.3)
        return 0

    assert run_command(main) == 0
    hang_limits.end_soon()  # outside a command, and so in a user's own program
    time.sleep(0.3)
    assert not hang_limits.ends_soon()
    assert os.getpid()
