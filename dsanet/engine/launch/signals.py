"""Signals set a flag; the run then stops at the next step boundary, with everything saved.

Slurm sends a step signal to every descendant of a task. SIGUSR1 and SIGUSR2 are therefore blocked,
which children inherit over fork and exec, and received by a waiting thread, which also works while
the main thread waits in a collective.

train.py imports this module before torch: it must stay free of heavy imports.
"""

from __future__ import annotations

import enum
import math
import signal
import threading
import time
from types import FrameType


class Stop(enum.IntEnum):
    """Why a run should end early; of several processes the largest value counts."""

    NO = 0
    REQUEUE = 1  # SIGUSR1, SIGUSR2: time limit or preemption is near
    END = 2  # SIGTERM, Ctrl-C: end for good

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report a process that a signal ended.

        It is not zero, so that jobs that depend on a complete run (`afterok`) do not start.
        """
        return 128 + (signal.SIGUSR1 if self == Stop.REQUEUE else signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818
    """Raised where work ends early because of a signal, with its results so far saved."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"stopped by a signal ({stop.name.lower()})")
        self.stop = stop


REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# srun and torchrun forward one Ctrl-C more than once; after this many seconds it is a second one.
SAME_CTRL_C = 2.0


class Signals:
    """Receives signals and sets the flag `stop`, which the training loop reads.

    SIGTERM may come several times, from Slurm and from torchrun. A second Ctrl-C of the user ends
    the process at once.
    """

    def __init__(self) -> None:
        self.stop = Stop.NO
        self._first_ctrl_c = math.inf

    @property
    def ending(self) -> bool:
        """Whether the run should end for good."""
        return self.stop == Stop.END

    def install(self) -> Signals:
        """Handle the four signals; call it before threads or child processes are started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, REQUEUE_SIGNALS)
        for number in REQUEUE_SIGNALS + END_SIGNALS:
            signal.signal(number, self._handle)
        threading.Thread(target=self._receive, name="signals", daemon=True).start()
        return self

    def _receive(self) -> None:
        while True:
            self._set_flag(signal.sigwait(REQUEUE_SIGNALS))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if time.monotonic() - self._first_ctrl_c > SAME_CTRL_C:
                raise KeyboardInterrupt
            self._first_ctrl_c = min(self._first_ctrl_c, time.monotonic())
        self._set_flag(number)

    def _set_flag(self, number: int) -> None:
        self.stop = max(self.stop, Stop.REQUEUE if number in REQUEUE_SIGNALS else Stop.END)


def ignore_sigterm() -> None:
    """Ignore SIGTERM until the process ends; call it once all work is saved.

    srun sends it to the other tasks when the first exits with a code that is not zero. A task that
    died of it would hide the exit code that says why the step ended. Without `Signals.install`
    nothing is changed.
    """
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
