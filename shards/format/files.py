"""Read files without ever waiting for a pipe, and write them so that nobody reads half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dsanet.limits import raise_limit

CHUNK = 1 << 20  # bytes read at once


KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a disk"),
)


def check_regular(status: os.stat_result, path: str | Path) -> None:
    """Check that a file is neither a folder, a pipe, a socket nor a device.

    Raises:
        OSError: if it is; its text says what the file is.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in KINDS if test(status.st_mode)), "a special file")
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def open_descriptor(path: str | Path) -> int:
    """Open a regular file for reading, and return its descriptor.

    Opening a pipe can block for ever and opening a device can change its state, so neither is
    opened; a link is followed.

    Raises:
        OSError: if there is no such file, or if it is a folder, FIFO, device or socket.
        LimitError: if the process has no more descriptors.
    """
    check_regular(os.stat(path), path)
    # Without O_NONBLOCK, a pipe that has taken the file's place meanwhile would block.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise_limit(error)  # or the file would be taken for a damaged one
        raise
    try:
        check_regular(os.fstat(descriptor), path)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; see `open_descriptor`, also for the errors."""
    return os.fdopen(open_descriptor(path), "rb")


def read_regular(path: str | Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    No more is read than the file's size when it is opened: the files of /proc have size 0, and
    reading some of them never ends.

    Raises:
        OSError: as `open_descriptor`, and if the file is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
        return file.read(size)


def create(path: Path, *, truncate: bool = True) -> BinaryIO:
    """Open a regular file for reading and writing; it is made if it does not exist.

    A link at `path` is not followed: in a set from elsewhere it may lead to any file of the user.

    Raises:
        OSError: if the file cannot be written, or is a link, a FIFO or a device.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    try:
        check_regular(os.fstat(descriptor), path)
        if truncate:
            os.ftruncate(descriptor, 0)
        return os.fdopen(descriptor, "r+b")
    except BaseException:
        os.close(descriptor)
        raise


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal; the file is read in pieces.

    Raises:
        OSError: if the file cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old or the new content.

    The content is on the disk before it takes the name `path`. Only one process may write a path
    at a time.

    Raises:
        OSError: if the file cannot be written; its `filename` is `path`, which is unchanged.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        with create(partial) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError; those of a write or a sync do not name their file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where its file system can do that.

    Raises:
        OSError: if the disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)
