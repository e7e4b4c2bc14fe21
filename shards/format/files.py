"""Hash files, and write them so that nobody ever reads half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

CHUNK = 1 << 20  # bytes read at once


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; the file is read in pieces.

    Raises:
        OSError: if the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
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
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
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
