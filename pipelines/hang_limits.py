"""Ends a process that hangs, from a thread that needs nothing of the interpreter.

A thread that waits for a dead disk inside a page fault holds the interpreter's lock, and no line of
Python runs any more. The timer of `faulthandler` is a thread in C: it still prints where every
thread is, and ends the process with exit code 1. A process has one such timer; it is set for the
innermost limit, and once the end of the process is scheduled for nothing else.

Only a command wants its process to end (`command_may_end`); elsewhere limits have no effect.
"""

from __future__ import annotations

import contextlib
import faulthandler
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

GRACE = 20.0  # seconds from the end of a limit to that of the process


@dataclass(eq=False)
class Limit:
    """When the stacks of all threads are printed; exit: whether the process ends then."""

    end: float
    exit: bool


@dataclass
class _Timer:
    """The limits under way, the innermost last, and the scheduled end of the process."""

    allowed: bool = False
    limits: list[Limit] = field(default_factory=list)
    scheduled: Limit | None = None

    def set(self) -> None:
        """Set the timer of faulthandler."""
        limit = self.scheduled or (self.limits[-1] if self.limits else None)
        if limit is None:
            faulthandler.cancel_dump_traceback_later()
        else:
            seconds = max(limit.end - time.monotonic(), 0.01)
            faulthandler.dump_traceback_later(seconds, exit=limit.exit)


_timer = _Timer()


@contextlib.contextmanager
def command_may_end() -> Iterator[None]:
    """Let limits end the process within the block, which is a whole command."""
    _timer.allowed = True
    try:
        yield
    finally:
        _timer.allowed, _timer.scheduled = False, None
        _timer.set()


def end_soon() -> None:
    """Let the process have GRACE seconds from now on, for errors to be printed."""
    if _timer.allowed and _timer.scheduled is None:
        _timer.scheduled = Limit(time.monotonic() + GRACE, exit=True)
        _timer.set()


def ends_soon() -> bool:
    """Whether the end of the process is scheduled."""
    return _timer.scheduled is not None


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End the process if the block takes GRACE longer than `seconds` (0: no limit).

    It counts in the main thread alone.
    """
    if not (seconds and _timer.allowed) or threading.current_thread() != threading.main_thread():
        yield
        return
    with _added(Limit(time.monotonic() + seconds + GRACE, exit=True)):
        yield


@contextlib.contextmanager
def stacks_after(seconds: float) -> Iterator[Limit]:
    """Print the stacks of all threads once the block has taken `seconds`; `restart` begins anew."""
    with _added(Limit(time.monotonic() + seconds, exit=False)) as limit:
        yield limit


def restart(limit: Limit, seconds: float) -> None:
    """Let a limit end `seconds` from now."""
    limit.end = time.monotonic() + seconds
    _timer.set()


@contextlib.contextmanager
def _added(limit: Limit) -> Iterator[Limit]:
    _timer.limits.append(limit)
    _timer.set()
    try:
        yield limit
    finally:
        _timer.limits.remove(limit)
        _timer.set()
