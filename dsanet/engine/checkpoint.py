"""Checkpoint files: written atomically, verified by a hash, pruned.

A file is called `step-SSSSSSSSS-HHHHHHHHHHHHHHHH.pt`: the step after which it was taken and the
first 16 digits of its SHA-256. It is renamed to this name once its content is on the disk, so a
file with such a name is complete, and a later change of any bit is detected by `verify`.
What a file contains is defined in `run_state`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsanet.engine.errors import EngineError, UsageError
from dsanet.errors import ModelError, require
from dsanet.weights.files import read_file
from shards.format.files import sha256, sync_folder, write_atomic

NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")
PARTIAL = ".partial"

Report = Callable[[str], None]


class DamagedError(EngineError):
    """A checkpoint file is missing, changed or unreadable."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep.

    Attributes:
        keep: number of newest checkpoints to keep, besides the best one.
        every_steps: also save each time this many steps are done; 0: only at the end of epochs.
        every_minutes: also save when the last save is this long ago; 0: never.
    """

    keep: int = 2
    every_steps: int = 0
    every_minutes: float = 30.0

    def __post_init__(self) -> None:
        for name, least in (("keep", 1), ("every_steps", 0), ("every_minutes", 0)):
            value = getattr(self, name)
            must = f"be at least {least}"
            require(value >= least, f"checkpoint.{name}", must, value, UsageError)


def _digest(path: Path) -> str:
    return sha256(path)[:16]


def fingerprint(path: Path) -> str:
    """First 16 digits of a checkpoint's SHA-256, from its name or else from its content."""
    match = NAME.fullmatch(path.name)
    return match[2] if match else _digest(path)


class CheckpointFolder:
    """The checkpoints of one run.

    Only one process may save; any may read.

    keep: number of newest checkpoints to keep, besides the best one.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.keep = keep

    def files(self) -> list[Path]:
        """All complete checkpoints, oldest first; of two of one step, the one saved later last."""
        return [path for _, _, path in self._listing()]

    def size(self) -> int:
        """Bytes of all complete checkpoints."""
        return sum(status.st_size for _, status, _ in self._listing())

    def _listing(self) -> list[tuple[int, os.stat_result, Path]]:
        entries = []
        for path in self.path.iterdir() if self.path.is_dir() else ():
            # Another process may remove a file that has just been listed.
            with contextlib.suppress(FileNotFoundError):
                if match := NAME.fullmatch(path.name):
                    status = path.stat()
                    if stat.S_ISREG(status.st_mode):
                        entries.append((int(match[1]), status, path))
        return sorted(entries, key=lambda entry: (entry[0], entry[1].st_mtime_ns, entry[2]))

    def remove_partial(self) -> None:
        """Remove the unfinished files of a killed process."""
        for path in self.path.glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)

    def save(self, step: int, content: Mapping[str, Any]) -> Path:
        """Write a checkpoint and remove those that need not be kept; returns its file.

        Raises:
            EngineError: when it cannot be written; the other checkpoints are not changed.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f"step-{step:09d}.pt{PARTIAL}"
        try:
            with partial.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            # torch replaces the error of a write by one of its own.
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise EngineError(
                f"{self.path}: cannot write a checkpoint ({reason}); free some space there and run "
                "the same command again: it continues from the last checkpoint"
            ) from error
        path = self.path / f"step-{step:09d}-{_digest(partial)}.pt"
        partial.replace(path)
        sync_folder(self.path)
        self._prune(path)
        return path

    def update_best(self, path: Path, score: float | None) -> None:
        """Mark `path` as the best checkpoint if its score is higher than that of the best one."""
        best = self.best()
        if score is None or (best is not None and score <= best[1]):
            return
        content = json.dumps({"file": path.name, "value": score})
        write_atomic(self.path / "best.json", content.encode())

    def best(self) -> tuple[Path, float] | None:
        """The best checkpoint and its validation score, if one is marked and still there."""
        mark = self.path / "best.json"
        if not mark.is_file():
            return None
        try:
            content = json.loads(mark.read_text(encoding="utf-8"))
            name, score = str(content["file"]), float(content["value"])
        except (ValueError, KeyError, TypeError, RecursionError):  # truncated by a crash
            return None
        path = self.path / name
        return (path, score) if NAME.fullmatch(name) and path.is_file() else None

    def _prune(self, new: Path) -> None:
        best = self.best()
        keep = {new, best[0]} if best else {new}
        for path in self.files()[: -max(self.keep, 1)]:
            if path not in keep:
                path.unlink(missing_ok=True)

    def newest_intact(self, report: Report, *, set_aside: bool = False) -> Path | None:
        """The newest checkpoint whose content matches its name, or None if there are none at all.

        report: called with a warning for each damaged checkpoint.
        set_aside: rename damaged checkpoints, so that they are not tried again.

        Raises:
            EngineError: when all checkpoints are damaged.
        """
        files = self.files()
        for path in reversed(files):
            try:
                verify(path)
            except DamagedError as error:
                before = "; using the checkpoint before it" if path != files[0] else ""
                report(f"WARNING: {error}{before}")
                if set_aside:
                    path.rename(path.with_suffix(".damaged"))
            else:
                return path
        if files:
            raise EngineError(
                f"{self.path}: all {len(files)} checkpoints are damaged; start again with another "
                "--out"
            )
        return None


def verify(path: Path) -> None:
    """Check a checkpoint's content against the hash in its name, if it has one.

    Raises:
        DamagedError: when the file is missing or its hash is another one.
    """
    match = NAME.fullmatch(path.name)
    try:
        damaged = match is not None and _digest(path) != match[2]
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: no such checkpoint") from error
    if damaged:
        raise DamagedError(f"{path}: damaged, its content does not match the hash in its name")


def load_file(path: Path) -> Any:
    """Load a file of torch.save onto the CPU, if it holds tensors and plain values only.

    Raises:
        DamagedError: when it is missing or cannot be read.
    """
    if not path.exists():
        raise DamagedError(f"{path}: no such checkpoint; give a run folder or a .pt file")
    try:
        return read_file(path, inert=False).content
    except ModelError as error:
        raise DamagedError(f"{error}, or give another checkpoint") from error


def find_checkpoint(path: Path, which: str, report: Report) -> Path:
    """An intact checkpoint file: the last or the best of a run folder, or `path` itself.

    which: `last` or `best`, for a run folder. Where the last one is damaged, it is the newest of
        the intact ones.
    report: called with a warning for each damaged checkpoint.

    Raises:
        EngineError: when there is none, or the one asked for is damaged.
    """
    if path.is_file():
        verify(path)
        return path
    folder = CheckpointFolder(path / "checkpoints")
    if not path.is_dir() or not folder.files():
        raise EngineError(f"{path}: no checkpoint there; give the run folder of train.py")
    if which == "last":
        newest = folder.newest_intact(report)
        assert newest is not None, "the folder has checkpoints"
        return newest
    if (best := folder.best()) is None:
        raise EngineError(
            f"{path}: no checkpoint is marked as the best, it was trained without validation; use "
            "--which last"
        )
    try:
        verify(best[0])
    except DamagedError as error:
        raise DamagedError(f"{error}; it is the best of {path}, use --which last") from error
    return best[0]
