"""What each thread of a loader is doing, for the report when no batch comes."""

from __future__ import annotations

import faulthandler
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dsanet.errors import printable


class Activity:
    """Records what each thread is doing, and since when."""

    def __init__(self) -> None:
        self._now: dict[str, tuple[str, float]] = {}

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Mark the calling thread as busy with `what`."""
        name = threading.current_thread().name
        outer = self._now.get(name)
        self._now[name] = (what, time.monotonic())
        try:
            yield
        finally:
            if outer is None:
                self._now.pop(name, None)
            else:
                self._now[name] = outer

    def report(self) -> list[str]:
        """One line for each busy thread, the longest first."""
        now = time.monotonic()
        busy = sorted(self._now.items(), key=lambda item: item[1][1])
        return [f"{name}: {what} for {now - since:.0f} s" for name, (what, since) in busy]


def stacks() -> str:
    """The Python stacks of all threads."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def report_stall(seconds: float, activity: Activity) -> str:
    """Print what each thread is doing, and all Python stacks, on stderr; returns the first line."""
    lines = activity.report() or ["no thread of the loader is busy"]
    summary = printable(f"no batch for {seconds:.0f} s: " + "; ".join(lines))
    sys.stderr.write(f"warning: {summary}\n{stacks()}\n")
    sys.stderr.flush()
    return summary
