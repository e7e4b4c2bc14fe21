"""Signals: stop at a step boundary, saved, and come back under SLURM.

A SLURM step signal reaches every descendant of a task. SIGUSR1 and SIGUSR2 are therefore blocked
here, which children inherit over fork and exec, and taken by a waiting thread; that also works
while the main thread sits in a collective.
"""

from __future__ import annotations

import enum
import math
import signal
import threading
import time
from types import FrameType


class Stop(enum.IntEnum):
    """Why a run should end early; the greatest of all processes counts."""

    NO = 0
    REQUEUE = 1  # SIGUSR1, SIGUSR2: time limit or preemption is near
    END = 2  # SIGTERM, Ctrl-C: leave, do not come back

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 128 + its number.

        Not zero, so that nothing that waits for the end of training (`afterok`) goes on.
        """
        return 128 + (signal.SIGUSR1 if self == Stop.REQUEUE else signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818
    """Work ended early because a signal asked for it, with all that was done kept."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"stopped by a signal ({stop.name.lower()})")
        self.stop = stop


SOFT = (signal.SIGUSR1, signal.SIGUSR2)
HARD = (signal.SIGTERM, signal.SIGINT)
# Seconds after which another Ctrl-C is a new one.
PATIENCE = 2.0


class Signals:
    """Turns signals into a flag that the loop reads.

    SIGTERM may come several times (from SLURM, from torchrun); a second Ctrl-C from an impatient
    user ends the process at once.
    """

    def __init__(self) -> None:
        self.stop = Stop.NO
        self._interrupted = math.inf

    def install(self) -> Signals:
        """Take over the four signals; call it before anything starts threads or children."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SOFT)
        for number in SOFT + HARD:
            signal.signal(number, self._handle)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()
        return self

    def _wait(self) -> None:
        while True:
            self._note(signal.sigwait(SOFT))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            # srun and torchrun pass one Ctrl-C on more than once.
            if time.monotonic() - self._interrupted > PATIENCE:
                raise KeyboardInterrupt
            self._interrupted = min(self._interrupted, time.monotonic())
        self._note(number)

    def _note(self, number: int) -> None:
        self.stop = max(self.stop, Stop.REQUEUE if number in SOFT else Stop.END)


def leave_undisturbed() -> None:
    """Ignore SIGTERM from here to the end of the process, all work being saved.

    srun sends it to the other tasks once the first has left with a code that is not zero; whoever
    died of it would hide the code that says why the step ended.
    """
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # else it was never ours
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
