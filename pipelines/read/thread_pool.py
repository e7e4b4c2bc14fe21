"""A pool of daemon threads.

Unlike one of concurrent.futures, a thread that hangs in a read cannot keep the interpreter from
exiting.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

TICK = 0.1  # seconds between two checks of a stop flag


class StoppedError(Exception):
    """Work was given up because its stop flag was set."""


class ThreadPool:
    """`count` daemon threads that run functions over columns of arguments."""

    def __init__(self, count: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(count)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # no more threads: let those that were started end
            self.close()
            raise

    def map(
        self,
        function: Callable[..., Any],
        *columns: Sequence[Any],
        stop: threading.Event | None = None,
    ) -> list[Any]:
        """Results in order; the first exception is raised once all calls have ended.

        stop: once it is set, no further call begins, and those under way are not waited for.

        Raises:
            StoppedError: when `stop` is set before all calls have ended.
            RuntimeError: when the pool is closed.
        """
        stop = stop or threading.Event()
        calls = list(zip(*columns, strict=True))
        results: list[Any] = [None] * len(calls)
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        with self._lock:
            if self._closed:
                raise RuntimeError("the thread pool is closed")
            for index, arguments in enumerate(calls):
                self._tasks.put((function, arguments, results, index, done, stop))
        errors = [error for _ in calls if (error := _next(done, stop)) is not None]
        if errors:
            raise errors[0]
        return results

    def close(self) -> None:
        """Let each thread end after the call that it is in."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            function, arguments, results, index, done, stop = task
            try:
                if stop.is_set():
                    raise StoppedError
                results[index] = function(*arguments)
                error: BaseException | None = None
            except BaseException as caught:
                error = caught
            done.put(error)
            del task, function, arguments, results, done, error  # hold no batch while idle


def _next(done: queue.SimpleQueue[Any], stop: threading.Event) -> Any:
    """The next item; StoppedError once `stop` is set."""
    while not stop.is_set():
        try:
            return done.get(timeout=TICK)
        except queue.Empty:
            continue
    raise StoppedError
