"""Signals become a flag that the training loop reads."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dsanet.engine.launch.signals import Stop

CHILD = """
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))
from dsanet.engine.launch.signals import Signals
import subprocess
signals = Signals().install()
child = subprocess.Popen(["sleep", "30"])
expected, *numbers = sys.argv[1:]
for number in map(int, numbers):
    os.kill(os.getpid(), number)
    os.kill(child.pid, signal.SIGUSR1)
    time.sleep(0.1)
deadline = time.monotonic() + 30
while signals.stop.name != expected and time.monotonic() < deadline:
    time.sleep(0.01)  # a thread receives the signals
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
    words = [sys.executable, "-c", CHILD, stop, *(str(int(number)) for number in numbers)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [stop, "None"], done.stderr


def test_a_run_that_was_stopped_has_an_exit_code_of_its_signal() -> None:
    assert Stop.REQUEUE.exit_code == 138
    assert Stop.END.exit_code == 143


def test_a_process_that_ignores_sigterm_ends_with_its_own_exit_code() -> None:
    """Also during the interpreter's shutdown, which restores handlers before the end."""
    script = (
        "import atexit, os, signal, sys\n"
        "from dsanet.engine.launch.signals import Signals, ignore_sigterm\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid()):\n"
        "        kill(me, 15)\n"
        "sys.last = Last()\n"  # deleted with the modules
        "Signals().install()\n"
        "if sys.argv[1:]: ignore_sigterm()\n"
        "atexit.register(os.kill, os.getpid(), 15)\n"
        "sys.exit(138)\n"
    )
    code = [subprocess.run([sys.executable, "-c", script, *w]).returncode for w in ([], ["x"])]
    assert code == [-signal.SIGTERM, 138]
