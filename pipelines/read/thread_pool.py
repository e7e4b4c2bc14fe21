"""A pool of daemon threads.

Unlike one of concurrent.futures, a thread that hangs in a read cannot keep the interpreter from
exiting.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any


class ThreadPool:
    """`count` daemon threads that run functions over columns of arguments."""

    def __init__(self, count: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def map(self, function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        """Results in order; the first exception is raised once all calls have ended.

        Raises:
            RuntimeError: when the pool is closed.
        """
        calls = list(zip(*columns, strict=True))
        results: list[Any] = [None] * len(calls)
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        with self._lock:
            if self._closed:
                raise RuntimeError("the thread pool is closed")
            for index, arguments in enumerate(calls):
                self._tasks.put((function, arguments, results, index, done))
        errors = [error for _ in calls if (error := done.get()) is not None]
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
            function, arguments, results, index, done = task
            try:
                results[index] = function(*arguments)
                error: BaseException | None = None
            except BaseException as caught:
                error = caught
            done.put(error)
            del task, function, arguments, results, done, error  # hold no batch while idle
