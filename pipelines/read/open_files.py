"""Keeps the tars of a reader open, within the limits of the process."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
from collections import OrderedDict
from pathlib import Path

from dsanet.limits import LimitError
from shards.format.files import open_descriptor

RESERVED = 512  # descriptors for sockets, GPUs, libraries and checkpoints
MIN_OPEN_FILES = 16


class OpenFiles:
    """A cache of file descriptors; the least recently used ones are closed first.

    random: whether the files are read at random places; limit: files kept open.
    """

    def __init__(self, random: bool, limit: int = 128) -> None:
        self._random, self._limit = random, limit
        self._open: OrderedDict[Path, list[int]] = OrderedDict()  # [descriptor, users]
        self._lock = threading.Lock()
        self._closed = False

    def acquire(self, path: Path) -> int:
        """A descriptor of `path`, which stays open until it has been released as often.

        Raises:
            OSError: when it is not a regular file, cannot be opened, or all are closed.
            LimitError: when the process has no more descriptors.
        """
        with self._lock:
            if (known := self._use(path)) is not None:
                return known
        # Without the lock: on a disk that does not answer, this call may never return.
        descriptor = self._open_file(path)
        with self._lock:
            try:
                known = self._use(path)
            except OSError:
                os.close(descriptor)
                raise
            if known is not None:  # another thread has opened it meanwhile
                os.close(descriptor)
                return known
            self._open[path] = [descriptor, 1]
            return descriptor

    def _use(self, path: Path) -> int | None:
        """The descriptor of an open file, with one more user; None for one that is not open."""
        if self._closed:
            raise OSError(errno.EBADF, "the loader is closed", str(path))
        if (entry := self._open.get(path)) is None:
            return None
        entry[1] += 1
        self._open.move_to_end(path)
        return entry[0]

    def release(self, path: Path) -> None:
        """Give back a descriptor that `acquire` returned."""
        with self._lock:
            self._open[path][1] -= 1
            if self._closed or len(self._open) > self._limit:
                self._close_idle(0 if self._closed else self._limit)

    def close(self) -> None:
        """Close all, those in use when they are released; `acquire` raises from now on."""
        with self._lock:
            self._closed = True
            self._close_idle(0)

    def _open_file(self, path: Path) -> int:
        try:
            descriptor = open_descriptor(path)
        except LimitError:
            if not self._open:
                raise
            with self._lock:
                self._limit = len(self._open) // 2  # others need descriptors, too
                self._close_idle(self._limit)
            descriptor = open_descriptor(path)
        if self._random:
            # Read-ahead would fetch the frames between the wanted ones as well.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return descriptor

    def _close_idle(self, limit: int) -> None:
        idle = [path for path, entry in self._open.items() if not entry[1]]
        for old in idle[: max(0, len(self._open) - limit)]:
            os.close(self._open.pop(old)[0])


def limit_of_open_files(tars: int) -> int:
    """How many of `tars` files a reader may keep open; the process's soft limit is raised for it.

    Of the limit on descriptors, RESERVED remain for others, and half of the rest belongs to each
    reader, since those of training and validation run at once.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * tars + RESERVED
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    room = tars if soft == resource.RLIM_INFINITY else (soft - RESERVED) // 2
    return max(MIN_OPEN_FILES, min(tars, room))
