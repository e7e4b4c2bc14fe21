"""A lock on an output folder, so that two commands never write into one at the same time.

The lock is the file FOLDER/lock. It names its owner, and its modification time is renewed while the
owner is alive. It is created by a hard link (O_EXCL where there are none), which one process alone
can do, on NFS too.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.first_process import on_first_process
from dsanet.engine.lock_owner import (
    STALE_SECONDS,
    Owner,
    read_owner,
    this_process,
    why_stale,
)
from shards.format.files import naming

NAME = "lock"
RENEWAL_SECONDS = 30.0
TAKEOVER_SECONDS = 5.0  # a takeover takes milliseconds; one that takes longer was killed
ATTEMPTS, PAUSE_SECONDS = 60, 0.1

Report = Callable[[str], None]


class FolderLock:
    """The lock of a folder, held within a `with` block.

    report: called with a line when a stale lock is taken over.

    Raises:
        EngineError: in `with`, when another command holds it.
        OSError: in `with`, naming the file, when the folder cannot be written to.
    """

    def __init__(self, folder: Path, report: Report = print) -> None:
        self.path = folder / NAME
        self.report = report
        self.owner = this_process()
        self._lost: str | None = None
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._renew_always, name="lock", daemon=True)

    def __enter__(self) -> FolderLock:
        with naming(self.path), self._candidate() as candidate:
            for _ in range(ATTEMPTS):
                if self._create(candidate):
                    self._remove_leftovers(candidate)
                    self._renewal.start()
                    return self
                self._remove_stale(candidate)
        raise EngineError(f"{self.path}: several commands try to take it; run one alone")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._renewal.join()
        with contextlib.suppress(OSError):  # the folder may have been removed
            if self._is_own():
                self.path.unlink()

    def check(self) -> None:
        """Check that the lock has not been taken over.

        Raises:
            EngineError: naming the new owner.
        """
        if self._lost:
            raise EngineError(
                f"{self.path.parent}: was taken over by {self._lost}, because this process had not "
                f"renewed {self.path.name} for {STALE_SECONDS:.0f} s or its job was requeued; it "
                "stops without writing"
            )

    def renew(self) -> None:
        """Renew the lock; a file that was removed by hand is written again."""
        if self._is_own():
            os.utime(self.path)
            return
        with self._candidate() as candidate:
            if not self._create(candidate):
                self._lost = str(read_owner(self.path) or "another process")

    def _renew_always(self) -> None:
        while not self._lost and not self._ended.wait(RENEWAL_SECONDS):
            with contextlib.suppress(OSError):  # a file server may be away for a while
                self.renew()

    def _is_own(self) -> bool:
        owner = read_owner(self.path)
        return owner is not None and owner.token == self.owner.token

    @contextlib.contextmanager
    def _candidate(self) -> Iterator[Path]:
        """The complete lock under a name of its own, to be linked to the real one."""
        path = self.path.with_name(f"{NAME}.{self.owner.token}")
        try:
            path.write_text(json.dumps(asdict(self.owner)), encoding="utf-8")
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _create(self, candidate: Path) -> bool:
        """Create the lock unless there is one; whether it was created."""
        try:
            os.link(candidate, self.path)
        except FileExistsError:
            # The answer of a file server may be lost, so that the second try finds the first.
            return self._is_own()
        except OSError:  # a file system without hard links
            return self._create_without_link()
        return True

    def _create_without_link(self) -> bool:
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(asdict(self.owner)))
        return True

    def _remove_stale(self, candidate: Path) -> None:
        """Remove the lock if it is stale.

        Raises:
            EngineError: when it is not.
        """
        try:
            owner = read_owner(self.path)
            signature = _signature(self.path)
            os.utime(candidate)  # by the clock of the file server, which the lock's time has too
            age = candidate.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:  # released meanwhile
            return
        if signature is None:
            return
        reason = why_stale(owner, age, self.owner)
        name = str(owner or "another process, which cannot be read")
        if reason is None:
            raise EngineError(
                f"{self.path.parent}: is in use by {name}, renewed {max(age, 0):.0f} s ago; wait "
                f"until it has ended, stop it, or give another --out (remove {self.path} only if "
                "that process is certainly gone)"
            )
        if self._remove_if_unchanged(owner, signature, candidate):
            self.report(f"WARNING: {self.path}: taken over from {name}: {reason}")

    def _remove_leftovers(self, candidate: Path) -> None:
        """Remove the files of processes that were killed while they took the lock."""
        for path in self.path.parent.glob(f"{NAME}.*"):
            with contextlib.suppress(FileNotFoundError):
                age = candidate.stat().st_mtime - path.stat().st_mtime
                if path != candidate and why_stale(read_owner(path), age, self.owner):
                    path.unlink()

    def _remove_if_unchanged(
        self, owner: Owner | None, signature: tuple[int, int], candidate: Path
    ) -> bool:
        """Remove the lock if it is still the file that was found stale; whether it was."""
        mutex = self.path.with_name(f"{NAME}.takeover")
        try:
            os.close(os.open(mutex, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            self._wait_for_takeover(mutex, candidate)
            return False
        # Only who has made this file removes stale locks, so the lock cannot change in between.
        try:
            unchanged = _signature(self.path) == signature and read_owner(self.path) == owner
            if unchanged:
                self.path.unlink(missing_ok=True)
            return unchanged
        finally:
            mutex.unlink(missing_ok=True)

    @staticmethod
    def _wait_for_takeover(mutex: Path, candidate: Path) -> None:
        """Wait a moment for another process; remove its file if it was killed in between."""
        time.sleep(PAUSE_SECONDS)
        os.utime(candidate)  # by the clock of the file server
        created, now = _signature(mutex), candidate.stat().st_mtime_ns
        if created is not None and now - created[1] > TAKEOVER_SECONDS * 1e9:
            mutex.unlink(missing_ok=True)


def _signature(path: Path) -> tuple[int, int] | None:
    """Inode and time of a file; None if it is missing."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def locked(folder: Path, world: World, report: Report) -> Iterator[FolderLock | None]:
    """Create a folder and hold its lock on rank 0; every process must call it.

    Yields the lock on rank 0, None on the others.

    Raises:
        UsageError: when the path is a file.
        EngineError: when another command holds the lock, or the folder cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        locks: list[FolderLock] = []

        def take() -> str:
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"{folder}: is not a folder; move it away, or give another --out")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                locks.append(stack.enter_context(FolderLock(folder, report)))
            except OSError as error:
                raise EngineError(
                    f"{error.filename or folder}: cannot be written ({error.strerror}); give a "
                    "folder that can be written to as --out"
                ) from error
            return ""

        on_first_process(world, take)
        yield locks[0] if locks else None
