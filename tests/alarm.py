"""An alarm that fails a test which would wait for ever."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def alarm(seconds: float = 20.0) -> Iterator[None]:
    """Interrupt the main thread when the block takes longer, also in a call that waits."""

    def fail(*_: object) -> None:
        raise AssertionError(f"still waiting after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
