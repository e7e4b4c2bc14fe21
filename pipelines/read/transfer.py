"""Copies files on several threads, and never waits for ever for one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, TypeVar

from pipelines.errors import HangError, LoaderError
from pipelines.hang_limits import end_soon
from pipelines.read.thread_pool import StoppedError, ThreadPool

BLOCK = 4 << 20  # bytes of one read; a slow store must deliver them within the idle limit

Item = TypeVar("Item")


class StallFlag(threading.Event):
    """A stop flag that sets itself once no byte has come for `idle` seconds (0: never)."""

    def __init__(self, idle: float) -> None:
        super().__init__()
        self.idle = idle
        self._last = time.monotonic()

    def renew(self) -> None:
        """Note that bytes have come."""
        self._last = time.monotonic()

    def is_set(self) -> bool:
        """Whether the copies should end."""
        if self.idle and time.monotonic() - self._last > self.idle:
            self.set()
        return super().is_set()


def blocks(
    source: BinaryIO, size: int, flag: StallFlag, name: str, seconds: float = 0.0
) -> Iterator[bytes]:
    """The content of an open file of at most `size` bytes, in blocks.

    name: of the file, for messages; seconds: that it may take (0: any number).

    Raises:
        LoaderError: when it is longer, or takes longer.
        StoppedError: once `flag` is set: nobody waits for the file any more.
    """
    left, end = size, time.monotonic() + seconds
    while block := source.read(min(BLOCK, left + 1)):
        if flag.is_set():
            raise StoppedError
        flag.renew()
        if len(block) > left:
            raise LoaderError(f"{name}: is longer than the {size} bytes that it may have")
        if seconds and time.monotonic() > end:
            raise LoaderError(f"{name}: took more than {seconds:g} s (loader.remote.total)")
        left -= len(block)
        yield block


def run_copies(
    copy: Callable[[Item, StallFlag], None],
    items: Sequence[Item],
    threads: int,
    idle: float,
    what: str,
) -> None:
    """Call `copy` for each item on several threads.

    After a failure no further copy begins, and those under way are completed. what: what is
    copied, and the setting behind `idle`, for the message.

    Raises:
        HangError: when no byte has come in any copy for `idle` seconds; the copies under way are
            left behind, and write nothing more once their read returns.
        Exception: the first one that `copy` has raised.
    """
    if not items:
        return
    flag, failed = StallFlag(idle), threading.Event()

    def copy_one(item: Item) -> None:
        if failed.is_set():
            return
        try:
            copy(item, flag)
        except BaseException:
            failed.set()
            raise

    pool = ThreadPool(min(threads, len(items)), "loader-stage")
    try:
        pool.map(copy_one, items, stop=flag)
    except StoppedError:
        end_soon()
        raise HangError(
            f"no byte for {idle:g} s while copying {what}: see whether that disk or server "
            "answers, then run the same command again"
        ) from None
    finally:
        failed.set()  # where the wait was interrupted
        pool.close()
