"""Checkpoints: written whole or not at all, checked before they are believed.

A file is called `step-SSSSSSSSS-HHHHHHHHHHHHHHHH.pt`: the step after which it was taken and the
head of its SHA-256. The name is given by one rename after the content is on the disk, so a file
under such a name is complete, and a later change of any bit is found when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsanet.engine.errors import EngineError, UsageError
from dsanet.errors import require

NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")
PARTIAL = ".partial"
FORMAT = 1  # of a checkpoint's content


class DamagedError(EngineError):
    """A checkpoint is not what was written."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep.

    Attributes:
        keep: newest checkpoints kept, besides the best one.
        every_steps: also save every so many steps; 0: at the end of each epoch only.
        every_minutes: also save when so much time has passed since the last save; 0: never.
    """

    keep: int = 2
    every_steps: int = 0
    every_minutes: float = 30.0

    def __post_init__(self) -> None:
        for name, least in (("keep", 1), ("every_steps", 0), ("every_minutes", 0)):
            value = getattr(self, name)
            must = f"be at least {least}"
            require(value >= least, f"checkpoint.{name}", must, value, UsageError)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()[:16]


def fingerprint(path: Path) -> str:
    """Head of a checkpoint's SHA-256: what its name says, or what its content gives."""
    match = NAME.fullmatch(path.name)
    return match[2] if match else _digest(path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError the path that it is about: one of a write or a sync knows none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write `path` so that a reader, or a crash at any instant, sees the old or the new content.

    Raises:
        OSError: naming `path`.
    """
    partial = path.with_name(f"{path.name}{PARTIAL}")
    with naming(path):
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)


class CheckpointFolder:
    """The checkpoints of one run.

    Only one process may save; any may read.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.keep = keep

    def names(self) -> list[Path]:
        """All complete checkpoints, oldest first; of two of one step, the one saved later last."""
        return [path for _, _, path in self._listing()]

    def size(self) -> int:
        """Bytes of all complete checkpoints."""
        return sum(status.st_size for _, status, _ in self._listing())

    def _listing(self) -> list[tuple[int, os.stat_result, Path]]:
        found = []
        for path in self.path.iterdir() if self.path.is_dir() else ():
            # Another process may prune what has just been listed.
            with contextlib.suppress(FileNotFoundError):
                if match := NAME.fullmatch(path.name):
                    found.append((int(match[1]), path.stat(), path))
        return sorted(found, key=lambda entry: (entry[0], entry[1].st_mtime_ns, entry[2]))

    def clean(self) -> None:
        """Remove what a killed writer left behind."""
        for path in self.path.glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write `state` under the step's name and drop what is no longer kept.

        Raises:
            EngineError: when the disk refuses; the checkpoints before this one are untouched.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f"step-{step:09d}.pt{PARTIAL}"
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise EngineError(
                f"cannot write a checkpoint to {self.path}: {error}; make room there, then run the "
                "same command again: it continues from the checkpoint before"
            ) from error
        path = self.path / f"step-{step:09d}-{_digest(partial)}.pt"
        partial.replace(path)
        _sync_folder(self.path)
        self._prune(path)
        return path

    def offer_best(self, path: Path, value: float | None) -> None:
        """Remember `path` as the best so far if its validation score says so."""
        best = self.best()
        if value is None or (best is not None and value <= best[1]):
            return
        content = json.dumps({"file": path.name, "value": value})
        write_atomic(self.path / "best.json", content.encode())

    def best(self) -> tuple[Path, float] | None:
        """The best checkpoint and its validation score, if one is marked and still there."""
        mark = self.path / "best.json"
        if not mark.is_file():
            return None
        try:
            content = json.loads(mark.read_text())
            path, value = self.path / content["file"], float(content["value"])
        except (ValueError, KeyError, TypeError):  # emptied by a crash of the machine
            return None
        return (path, value) if path.is_file() else None

    def _prune(self, new: Path) -> None:
        best = self.best()
        kept = {new, best[0]} if best else {new}
        for path in self.names()[: -max(self.keep, 1)]:
            if path not in kept:
                path.unlink(missing_ok=True)

    def newest(self, say: Callable[[str], None], *, mend: bool = False) -> dict[str, Any] | None:
        """State of the newest undamaged checkpoint, or None for a fresh folder.

        A damaged one is named through `say` and the one before it is taken; `mend` also renames it,
        so that it is never taken for one again.

        Raises:
            EngineError: when there are checkpoints and none can be read, or the newest is of
                another version of the project.
        """
        names = self.names()
        for path in reversed(names):
            try:
                return load_checkpoint(path)
            except DamagedError as error:
                say(f"WARNING: {error}; taking the checkpoint before it")
                if mend:
                    path.rename(path.with_suffix(".damaged"))
        if names:
            raise EngineError(
                f"all {len(names)} checkpoints in {self.path} are damaged: give another --out to "
                "start anew"
            )
        return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, after checking the hash in its name if it has one.

    Raises:
        EngineError: when the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise DamagedError(f"no checkpoint at {path}; give a run folder or a .pt file")
    match = NAME.fullmatch(path.name)
    if match and _digest(path) != match[2]:
        raise DamagedError(f"checkpoint {path} is damaged: its content does not match its name")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch would advise to open it all the same
        raise DamagedError(
            f"checkpoint {path} cannot be read: it is no file of torch.save, or holds more than "
            "tensors and plain values; give a run folder, or one of its .pt files"
        ) from error
    except Exception as error:  # torch raises whatever the broken byte leads to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(f"checkpoint {path} cannot be read: {reason}") from error
    if not isinstance(state, dict) or "format" not in state:
        raise EngineError(f"{path} was not written by train.py: it holds no state of a run")
    if state["format"] != FORMAT:
        raise EngineError(
            f"{path} has format {state['format']}, this version of the project reads {FORMAT}: "
            "use the one that wrote it (environment.json of its run names the commit)"
        )
    return state


def find_checkpoint(path: Path, which: str) -> Path:
    """The checkpoint file that a run folder or file name means.

    Raises:
        EngineError: when there is none.
    """
    if path.is_file():
        return path
    folder = CheckpointFolder(path / "checkpoints")
    if not path.is_dir() or not folder.names():
        raise EngineError(f"no checkpoint in {path}: give a run folder that train.py has written")
    if which == "last":
        return folder.names()[-1]
    if (best := folder.best()) is None:
        raise EngineError(f"{path} marks no best checkpoint: it was trained without validation")
    return best[0]
