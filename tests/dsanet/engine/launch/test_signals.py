"""Signals and requeueing, with a scontrol of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsanet.engine.launch.signals import Stop, requeue


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scontrol that writes down how it was called."""
    log = tmp_path / "calls"
    script = tmp_path / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return log


def test_outside_slurm_nothing_is_requeued(scontrol: Path) -> None:
    assert "run the same command again" in requeue(3)
    assert not scontrol.exists()


def test_a_job_is_requeued(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert requeue(3) == "job 13 requeued"
    assert scontrol.read_text() == "requeue 13\n"


def test_a_task_of_an_array_names_itself_alone(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last task's job id is that of the whole array.
    for name, value in (("JOB_ID", "13"), ("ARRAY_JOB_ID", "13"), ("ARRAY_TASK_ID", "3")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    requeue(3)
    assert scontrol.read_text() == "requeue 13_3\n"


def test_there_is_a_cap(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert "not requeued" in requeue(3)
    assert not scontrol.exists()


def test_a_refusal_is_told(scontrol: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho presently disabled >&2; exit 1\n")
    assert requeue(3) == "cannot requeue job 13: presently disabled"


CHILD = """
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))
from dsanet.engine.launch.signals import Signals
import subprocess
signals = Signals().install()
child = subprocess.Popen(["sleep", "30"])
for number in map(int, sys.argv[1:]):
    os.kill(os.getpid(), number)
    os.kill(child.pid, signal.SIGUSR1)
    time.sleep(0.2)
print(signals.stop.name, child.poll())
child.kill()
"""


@pytest.mark.parametrize(
    ("numbers", "stop"),
    [
        ((signal.SIGUSR1,), "REQUEUE"),
        ((signal.SIGUSR2, signal.SIGTERM), "END"),
        ((signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1), "END"),
        ((signal.SIGINT, signal.SIGINT), "END"),  # one Ctrl-C, passed on twice
    ],
)
def test_signals_set_the_flag_and_children_survive_them(
    numbers: tuple[int, ...], stop: str
) -> None:
    words = [sys.executable, "-c", CHILD, *(str(int(number)) for number in numbers)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [stop, "None"], done.stderr


def test_an_ended_run_is_no_success() -> None:
    assert Stop.REQUEUE.exit_code == 138
    assert Stop.END.exit_code == 143


def test_what_is_left_undisturbed_ends_with_its_own_code() -> None:
    """Also while the interpreter takes itself apart, which gives handlers back before the end."""
    script = (
        "import atexit, os, signal, sys\n"
        "from dsanet.engine.launch.signals import Signals, leave_undisturbed\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid()):\n"
        "        kill(me, 15)\n"
        "sys.last = Last()\n"  # falls when the modules do
        "Signals().install()\n"
        "if sys.argv[1:]: leave_undisturbed()\n"
        "atexit.register(os.kill, os.getpid(), 15)\n"
        "sys.exit(138)\n"
    )
    code = [subprocess.run([sys.executable, "-c", script, *w]).returncode for w in ([], ["x"])]
    assert code == [-signal.SIGTERM, 138]
