"""Names the limit of the machine that a call has met: no input is at fault then.

Too few file descriptors, threads or memory, or a full disk, make any call fail, with exceptions of
many types. `find_limit` tells them from faults of an input, and says how large the limit is.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from dsanet.errors import UserError, printable

MB = 1 << 20
# Texts of Python, torch, DALI and the C++ library where an exception has no errno.
TEXTS = (
    (re.compile(r"can't start new thread|Resource temporarily unavailable"), errno.EAGAIN),
    (re.compile(r"Too many open files"), errno.EMFILE),
    (re.compile(r"No space left on device"), errno.ENOSPC),
    (
        re.compile(
            r"can(?:no|')t allocate memory|not enough memory|bad_alloc|failed to map segment",
            re.IGNORECASE,
        ),
        errno.ENOMEM,
    ),
)


class LimitError(UserError, RuntimeError):
    """The process, the user or the machine has no more of something; no input is at fault."""


def find_limit(error: BaseException) -> str | None:
    """One line on the limit that an exception is due to, None for any other exception."""
    if isinstance(error, LimitError):
        return str(error)
    number = _number(error)
    path = getattr(error, "filename", None)
    if number == errno.EMFILE:
        return _describe_descriptors()
    if number == errno.ENFILE:
        return (
            "the machine has no file descriptors left "
            f"(/proc/sys/fs/file-nr: {_read('/proc/sys/fs/file-nr')}); end other programs"
        )
    if number == errno.EAGAIN:
        return _describe_threads()
    if number == errno.ENOMEM:
        return _describe_memory()
    if number in (errno.ENOSPC, errno.EDQUOT):
        return _describe_disk(number, str(path) if path else None)
    return None


def raise_limit(error: BaseException) -> None:
    """Raise LimitError if an exception is due to a limit; does nothing for any other."""
    if (reason := find_limit(error)) is not None:
        raise LimitError(reason) from error


def describe_failure(error: Exception) -> str | None:
    """One line on what the machine has refused: a limit, or a file and the reason; None for what
    is neither, which only a traceback explains."""
    reason = find_limit(error)
    if reason is None and isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        reason = f"{place}{error.strerror or error}"
    return reason


def _number(error: BaseException) -> int | None:
    """The errno that an exception stands for."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError):
        # FFmpeg has a BlockingIOError of its own, which asks for more input.
        own = error.errno != errno.EAGAIN or type(error) is BlockingIOError
        return error.errno if own else None
    if isinstance(error, (RuntimeError, ImportError)):  # a library may not fit into memory
        return next((number for text, number in TEXTS if text.search(str(error))), None)
    return None


def _describe_descriptors() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "unlimited" if hard == resource.RLIM_INFINITY else hard
    return (
        f"too many open files: this process may have {soft} (RLIMIT_NOFILE, hard limit {most}); no "
        "video is at fault; raise the limit with ulimit -n"
    )


def _describe_threads() -> str:
    limits = [
        f"{name} {value}"
        for name, value in (
            ("RLIMIT_NPROC", _soft(resource.RLIMIT_NPROC)),
            ("pids.max of the control group", _smallest("pids.max", "pids")),
            ("RLIMIT_AS in MB", _megabytes(_soft(resource.RLIMIT_AS))),
        )
        if value is not None
    ]
    known = ", ".join(limits) or "no limit of this process is known"
    return (
        f"no more threads or processes can be started ({known}); no video is at fault; raise the "
        "limit (ulimit -u), or lower loader.threads, loader.read_threads or --workers"
    )


def memory_limits() -> str:
    """The limits on the memory of this process, in MB, for a message."""
    limits = [
        f"{name} {value} MB"
        for name, value in (
            ("RLIMIT_AS", _megabytes(_soft(resource.RLIMIT_AS))),
            ("the control group's limit", _megabytes(_smallest("memory.max", "memory"))),
            ("free on the machine", _available()),
        )
        if value is not None
    ]
    return ", ".join(limits) or "no limit is known"


def _describe_memory() -> str:
    return (
        f"out of memory ({memory_limits()}); no video is at fault; raise "
        "the limit (ulimit -v, or the memory of the job), or lower the batch, loader.prefetch, "
        "loader.ahead_mb or --workers"
    )


def _describe_disk(number: int, path: str | None) -> str:
    what = "no space left" if number == errno.ENOSPC else "the disk quota is used up"
    if path is None:
        return f"{what} on a disk that is written to; free some, or write to another disk"
    folder = Path(path).parent
    try:
        free = f" ({shutil.disk_usage(folder).free // MB} MB free)"
    except OSError:
        free = ""
    return (
        f"{printable(path)}: {what} in {printable(folder)}{free}; free some, or write to another "
        "disk"
    )


def _soft(kind: int) -> int | None:
    """A soft limit of this process; None for no limit."""
    soft = resource.getrlimit(kind)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _megabytes(size: int | None) -> int | None:
    return None if size is None else size // MB


def _available() -> int | None:
    match = re.search(r"MemAvailable: +(\d+) kB", _read("/proc/meminfo"))
    return int(match[1]) // 1024 if match else None


def _smallest(file: str, controller: str) -> int | None:
    """The smallest limit of this process's control group and of those above it."""
    names = {file, "memory.limit_in_bytes"} if controller == "memory" else {file}
    limits = [
        int(text)
        for folder in _control_groups(controller)
        for name in names
        if (text := _read(str(folder / name)).strip()).isdecimal() and int(text) < 1 << 60
    ]
    return min(limits, default=None)


def _control_groups(controller: str) -> Iterator[Path]:
    """Folders of this process's control group (version 2, or 1) and of those above it."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = Path("/sys/fs/cgroup", controller if controllers else "")
        inside = top / path.lstrip("/")
        yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(top))


def _read(path: str) -> str:
    try:
        with open(os.fspath(path), encoding="utf-8", errors="replace") as file:
            return " ".join(file.read(1 << 16).split()) if "file-nr" in path else file.read(1 << 16)
    except OSError:
        return ""
