"""Plain USTAR tars, written in place: a video is muxed straight into its tar."""

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
from shards.format.files import create

BLOCK = 512
LOCK_TIMEOUT = 3.0  # seconds; the workers of a killed build end well within it
# A member of a vendor type: tar readers skip it as "not a regular file".
RECORD_NAME = "__record__"
RECORD_TYPE = b"Z"
MAX_SMALL = 64 << 20  # bytes of a member that is read as a whole: all but the video


class Window(io.RawIOBase):
    """A part of a file, from `start` on, that behaves as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, size: int | None = None) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = size
        self._position = 0
        self.end = 0  # one past the last byte written

    def reader(self) -> Window:
        """Return the part written so far as a file of its own, with its own position."""
        return Window(self._file, self._start, self.end)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        size = self.end if self._size is None else self._size
        self._position = offset + (0, self._position, size)[whence]
        return self._position

    def write(self, data: Any) -> int:
        self._file.seek(self._start + self._position)
        self._file.write(data)
        self._position += len(data)
        self.end = max(self.end, self._position)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        limit = self.end if self._size is None else self._size
        remaining = max(limit - self._position, 0)
        self._file.seek(self._start + self._position)
        data = self._file.read(remaining if size is None or size < 0 else min(size, remaining))
        self._position += len(data)
        return data


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a USTAR header that is the same on every machine: owner 0, time 0, mode 0644."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.mtime = size, kind, 0o644, 0
    return info.tobuf(tarfile.USTAR_FORMAT)


def _open_locked(path: Path) -> BinaryIO:
    """Open a file for writing without truncating it, locked against a second writer."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        file = create(path, truncate=False)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise ShardError(
                    f"{path}: another process is writing this file; wait for it"
                ) from None
            time.sleep(0.05)
        except OSError:
            return file  # a file system without locks; `BuildState.locked` has warned of it
        else:
            if _is_at(file, path):
                return file
        file.close()  # another writer has renamed this file to its final name


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


class TarWriter:
    """Appends members to the tar file `path`, from byte `offset` on.

    Raises:
        ShardError: if another process is writing the same file.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self._file = _open_locked(path)
        self._file.truncate(offset)
        self.offset = offset

    @contextmanager
    def stream_member(self, name: str) -> Iterator[Window]:
        """Append a member of unknown size: the block writes its data. An error there removes it."""
        window = Window(self._file, self.offset + BLOCK)
        try:
            yield window
        except BaseException:
            self.rewind(self.offset)
            raise
        self._file.seek(self.offset)
        self._file.write(_header(name, window.end))
        self._pad(window.end)

    def add(self, name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> None:
        """Append a member."""
        self._file.seek(self.offset)
        self._file.write(_header(name, len(data), kind))
        self._file.write(data)
        self._pad(len(data))

    def _pad(self, size: int) -> None:
        self._file.seek(self.offset + BLOCK + size)
        self._file.write(bytes(-size % BLOCK))
        self.offset += BLOCK + size + -size % BLOCK

    def rewind(self, offset: int) -> None:
        """Remove everything from byte `offset` on."""
        self._file.seek(offset)
        self._file.truncate(offset)
        self.offset = offset

    def finish(self, record: dict[str, Any], target: Path | None = None) -> None:
        """Append the record and the end of the archive, bring them to the disk and close the file.

        target: the final name of the file.
        """
        self.add(RECORD_NAME, json.dumps(record, sort_keys=True).encode(), RECORD_TYPE)
        self._file.seek(self.offset)
        self._file.write(bytes(2 * BLOCK))
        self._file.truncate(self.offset + 2 * BLOCK)
        self._file.flush()
        os.fsync(self._file.fileno())
        if target is not None:
            self.path.replace(target)  # under the lock: another writer could truncate the file
        self.close()

    def flush(self) -> None:
        """Flush the written bytes to the system, so that another process sees them."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class Member:
    """A member of a tar; `offset` and `size` of its data are in bytes."""

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


def iter_members(file: BinaryIO) -> Iterator[Member]:
    """Yield every member of a tar, in order. Raises tarfile.TarError if the tar is damaged."""
    position, end = 0, file.seek(0, os.SEEK_END)
    while True:
        file.seek(position)
        block = file.read(BLOCK)
        if block == bytes(BLOCK):
            return
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        # A header may claim any size, a negative one too, which would lead back to its beginning.
        if not 0 <= info.size <= end - position - BLOCK:
            raise tarfile.HeaderError(f"{info.name!r} has no room for {info.size} bytes")
        yield Member(info.name, info.type, position + BLOCK, info.size)
        position += BLOCK + info.size + -info.size % BLOCK


def read_member(file: BinaryIO, member: Member) -> bytes:
    """Return the data of a small member. Raises tarfile.TarError if it is not small."""
    if member.size > MAX_SMALL:
        raise tarfile.HeaderError(f"{member.name!r} has {member.size} bytes")
    file.seek(member.offset)
    return file.read(member.size)
