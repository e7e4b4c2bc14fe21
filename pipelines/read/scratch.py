"""Folders on node-local scratch, which several processes of a node fill and read.

One process copies; the others wait for its lock. A tar gets its name when it is complete and its
SHA-256 equals the manifest's, so an interrupted copy continues with the next tar.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from dsanet.errors import printable
from dsanet.terminal import print_line
from pipelines.config import LoaderConfig
from pipelines.errors import HangError, LoaderError
from pipelines.read.thread_pool import StoppedError
from pipelines.read.transfer import StallFlag, blocks, run_copies
from shards.format.files import create, naming

MARGIN = 1 << 30  # bytes left free on the scratch disk
LOCK = ".lock"
LONGEST_PAUSE = 2.0  # seconds between two attempts to get the lock
ANNOUNCED = 5.0  # seconds of waiting for the lock after which that is printed


def log(message: str) -> None:
    """Print one line on stderr."""
    print_line(message, error=True)


def scratch_folder(config: LoaderConfig) -> Path | None:
    """Node-local scratch: loader.scratch, else SLURM_TMPDIR, else None."""
    folder = config.scratch or os.environ.get("SLURM_TMPDIR")
    return Path(folder) if folder else None


def is_complete(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether the tar of a manifest entry is in `folder`, in full size."""
    path = folder / entry["name"]
    return path.is_file() and path.stat().st_size == entry["size"]


def require_space(folder: Path, size: int, source: str) -> None:
    """Raise LoaderError unless `folder` has room for `size` bytes of `source`."""
    free = shutil.disk_usage(folder).free
    if size and size + MARGIN > free:
        raise LoaderError(
            f"{folder}: {free / 1e9:.1f} GB free, but {source} needs {(size + MARGIN) / 1e9:.1f} "
            "GB; free some space, or choose another loader.scratch"
        )


def copy_tars(
    entries: Sequence[dict[str, Any]],
    copy: Callable[[dict[str, Any], StallFlag], None],
    threads: int,
    idle: float,
    what: str,
) -> None:
    """Copy the tars of manifest entries, several at a time, and print the speed.

    copy: copies one; threads, idle, what: see `run_copies`, also for the errors.
    """
    if not entries:
        return
    start = time.perf_counter()
    run_copies(copy, entries, threads, idle, what)
    seconds, size = time.perf_counter() - start, sum(entry["size"] for entry in entries)
    log(
        f"copied {len(entries)} tars ({size / 1e9:.2f} GB) in {seconds:.1f} s: "
        f"{size / 1e6 / seconds:.0f} MB/s"
    )


def copy_verified(
    open_source: Callable[[], AbstractContextManager[BinaryIO]],
    target: Path,
    entry: dict[str, Any],
    flag: StallFlag,
    seconds: float = 0.0,
) -> None:
    """Copy the tar of a manifest entry to `target`; it gets its name once it is verified.

    seconds: that it may take, see `blocks`.

    Raises:
        LoaderError: for another size or SHA-256 than the manifest's.
        OSError: where the disk fails or is full; it names `target`.
    """
    digest, size = hashlib.sha256(), 0

    def content() -> Iterator[bytes]:
        nonlocal size
        with open_source() as source:
            for block in blocks(source, entry["size"], flag, target.name, seconds):
                digest.update(block)
                size += len(block)
                yield block
        if size != entry["size"]:
            raise LoaderError(f"{target.name}: has {size} of the manifest's {entry['size']} bytes")
        if digest.hexdigest() != entry["sha256"]:
            raise LoaderError(
                f"{target.name}: its SHA-256 is not the manifest's, so it is damaged; check the "
                "set with tools/shard.py verify where it lies"
            )

    write_blocks(content(), target, flag)


def write_blocks(content: Iterator[bytes], target: Path, flag: StallFlag) -> None:
    """Write a file that gets its name once all of its content is on the disk.

    Raises:
        OSError: where the disk fails or is full; it names `target`.
        StoppedError: once `flag` is set.
        Exception: what `content` raises; nothing stays behind.
    """
    partial = target.with_name(f".{target.name}.part")
    with naming(target):
        out = create(partial)
    try:
        with out:
            for block in content:
                with naming(target):
                    out.write(block)
            with naming(target):
                out.flush()
                os.fsync(out.fileno())
        if flag.is_set():
            raise StoppedError
        partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(folder: Path, hang: float = 0.0) -> Iterator[None]:
    """Create `folder` and hold its lock, so that one process of a node copies at a time.

    Raises:
        HangError: when another process holds it, and no file of the folder has changed for `hang`
            seconds (0: any number).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with create(folder / LOCK, truncate=False) as file:
        _wait_for_lock(file, folder, hang)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield


def _wait_for_lock(file: BinaryIO, folder: Path, hang: float) -> None:
    start = changed = time.monotonic()
    state, pause, announced = _state(folder), 0.05, False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
        pause, now = min(1.5 * pause, LONGEST_PAUSE), time.monotonic()
        if (newer := _state(folder)) != state:
            state, changed = newer, now
        if hang and now - changed > hang:
            raise HangError(
                f"{folder}: {_holder(file)} holds its lock and has copied nothing for "
                f"{now - changed:.0f} s; end that process, then run the same command again"
            )
        if now - start > ANNOUNCED and not announced:
            announced = True
            log(f"waiting for {_holder(file)}, which copies to {folder}")


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    return printable(file.read(200).decode(errors="replace")) or "another process"


def _state(folder: Path) -> int:
    """Time of the last change to a file of a folder."""
    newest = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, entry.stat(follow_symlinks=False).st_mtime_ns)
    return newest
