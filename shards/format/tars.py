"""Plain USTAR tars: written in place, so that a video is muxed straight into its shard."""

from __future__ import annotations

import fcntl
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shards.errors import ShardError

BLOCK = 512
PATIENCE = 3.0  # seconds in which the worker of a killed build is gone
# A member of a vendor type: tar readers of all kinds pass over it as "not a regular file".
RECORD_NAME = "__record__"
RECORD_TYPE = b"Z"


class Window(io.RawIOBase):
    """The rest of a file from `start` on, as a file of its own that begins at 0."""

    def __init__(self, file: BinaryIO, start: int, size: int | None = None) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = size
        self._at = 0
        self.end = 0  # one past the last byte written

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        size = self.end if self._size is None else self._size
        self._at = offset + (0, self._at, size)[whence]
        return self._at

    def write(self, data: Any) -> int:
        self._file.seek(self._start + self._at)
        self._file.write(data)
        self._at += len(data)
        self.end = max(self.end, self._at)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        limit = self.end if self._size is None else self._size
        left = max(limit - self._at, 0)
        self._file.seek(self._start + self._at)
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A USTAR header with nothing of the machine in it: owner 0, time 0, mode 0644."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.mtime = size, kind, 0o644, 0
    return info.tobuf(tarfile.USTAR_FORMAT)


def _open_alone(path: Path) -> BinaryIO:
    """Open a file for writing, locked against a second writer, its contents as they are."""
    deadline = time.monotonic() + PATIENCE
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise ShardError(f"{path} is being written by another process: wait") from None
            time.sleep(0.05)
        except OSError:
            return file  # a file system without locks: the build has said so
        file.close()  # it got its final name meanwhile


class TarWriter:
    """Appends members to a tar file at `path`, from byte `offset` on.

    Raises ShardError where another process is writing the same file.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self._file = _open_alone(path)
        self._file.truncate(offset)
        self.offset = offset

    @contextmanager
    def streamed(self, name: str) -> Iterator[Window]:
        """A member whose size is not known before; an error inside leaves no trace of it."""
        window = Window(self._file, self.offset + BLOCK)
        try:
            yield window
        except BaseException:
            self.rewind(self.offset)
            raise
        self._file.seek(self.offset)
        self._file.write(header(name, window.end))
        self._pad(window.end)

    def add(self, name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> None:
        """Append one member."""
        self._file.seek(self.offset)
        self._file.write(header(name, len(data), kind))
        self._file.write(data)
        self._pad(len(data))

    def _pad(self, size: int) -> None:
        self._file.seek(self.offset + BLOCK + size)
        self._file.write(bytes(-size % BLOCK))
        self.offset += BLOCK + size + -size % BLOCK

    def rewind(self, offset: int) -> None:
        """Forget everything from byte `offset` on."""
        self._file.seek(offset)
        self._file.truncate(offset)
        self.offset = offset

    def finish(self, record: dict[str, Any], target: Path | None = None) -> None:
        """Append the record and the end of the archive, bring the bytes to the disk, and the file
        to its final name `target`."""
        self.add(RECORD_NAME, json.dumps(record, sort_keys=True).encode(), RECORD_TYPE)
        self._file.seek(self.offset)
        self._file.write(bytes(2 * BLOCK))
        self._file.truncate(self.offset + 2 * BLOCK)
        self._file.flush()
        os.fsync(self._file.fileno())
        if target is not None:
            self.path.replace(target)  # before the lock goes, or another writer could cut it off
        self.close()

    def flush(self) -> None:
        """Hand written bytes to the system, so that another process sees them."""
        self._file.flush()

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()


@dataclass(frozen=True)
class Member:
    """Where one member's bytes lie in a tar, in bytes from its beginning."""

    name: str
    kind: bytes
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The name up to the first dot."""
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        """The name after the first dot."""
        return self.name.partition(".")[2]


def members(file: BinaryIO) -> Iterator[Member]:
    """Every member of a tar, in order. Raises tarfile.TarError where the tar is damaged."""
    at = 0
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if block == bytes(BLOCK):
            return
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        yield Member(info.name, info.type, at + BLOCK, info.size)
        at += BLOCK + info.size + -info.size % BLOCK


def read_member(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a member."""
    file.seek(member.offset)
    return file.read(member.size)
