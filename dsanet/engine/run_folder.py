"""What a run leaves on disk besides its checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dsanet.engine.checkpoint import CheckpointFolder, naming, write_atomic
from dsanet.engine.config import TrainConfig, dump
from dsanet.engine.errors import EngineError, UsageError

PACKAGES = ("torch", "numpy", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "webdataset", "av")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["torch"] = str(torch.__version__)  # names the build, too: +cpu, +cu130
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def _git(*words: str) -> str | None:
    folder = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip()


def git_state() -> dict[str, Any]:
    """Commit and uncommitted changes of the project this process runs from; empty outside git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {
        "commit": commit,
        "changes": _git("diff", "HEAD", "--stat"),
        "diff": _git("diff", "HEAD"),
    }


class RunFolder:
    """Layout of a run: config.yaml, metrics.jsonl, environment.json, log, checkpoints/."""

    def __init__(self, path: str | Path, keep: int = 2) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.environment = self.path / "environment.json"
        self.log = self.path / "log"
        self.quarantine = self.path / "quarantine.jsonl"
        self.checkpoints = CheckpointFolder(self.path / "checkpoints", keep)

    def prepare(
        self, config: TrainConfig, processes: list[str], say: Callable[[str], None]
    ) -> None:
        """Create the folder, or open it again, and write down how it is run this time.

        Raises:
            UsageError: when a file is in its place.
            EngineError: when the folder can't be written.
        """
        for folder in (self.path, self.checkpoints.path):
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"{folder} is no folder: move it away, or give another --out")
        try:
            self.checkpoints.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.config, dump(config).encode())
            self._note_start(processes, say)
            self.checkpoints.clean()
        except OSError as error:
            raise EngineError(
                f"cannot write {error.filename or self.path}: {error.strerror}; a run needs a "
                "folder that it can write to (--out)"
            ) from error

    def _starts(self, say: Callable[[str], None]) -> list[Any]:
        """The starts so far; a file that holds something else is set aside."""
        if not self.environment.is_file():
            return []
        with contextlib.suppress(ValueError):
            starts = json.loads(self.environment.read_text())
            if isinstance(starts, list):
                return starts
        aside = self.environment.with_suffix(".json.damaged")
        self.environment.replace(aside)
        say(f"WARNING: {self.environment} is damaged: set aside as {aside.name}, begun anew")
        return []

    def _note_start(self, processes: list[str], say: Callable[[str], None]) -> None:
        starts = self._starts(say)
        slurm = {k: v for k, v in os.environ.items() if k.startswith("SLURM_") and "TOKEN" not in k}
        starts.append(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "command": [Path(sys.executable).name, *sys.argv],
                "host": socket.gethostname(),
                "processes": processes,
                "versions": versions(),
                "git": git_state(),
                "slurm": slurm,
            }
        )
        write_atomic(self.environment, json.dumps(starts, indent=1).encode())

    def cut(self, samples: int, epochs: int, say: Callable[[str], None]) -> None:
        """Drop what a run continued after `samples` and `epochs` validations will record again.

        Lines that are no records, as a crash cuts them short, are set aside.
        """
        if not self.metrics.is_file():
            return
        kept, odd = [], []
        for line in self.metrics.read_bytes().splitlines(keepends=True):
            belongs = _belongs(line, samples, epochs)
            if belongs is None:
                odd.append(line.rstrip(b"\n") + b"\n")
            elif belongs:
                kept.append(line)
        if odd:
            aside = self.metrics.with_suffix(".jsonl.damaged")
            with naming(aside), aside.open("ab") as file:
                file.writelines(odd)
            told = f"{len(odd)} damaged line{'s' if len(odd) > 1 else ''}"
            say(f"WARNING: {told} of {self.metrics} set aside in {aside.name}")
        write_atomic(self.metrics, b"".join(kept))

    def add(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with naming(self.metrics), self.metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _belongs(line: bytes, samples: int, epochs: int) -> bool | None:
    """Whether a record was taken up to a position; None for what is none."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else {}
        late = record["kind"] in ("val", "epoch") and record["epoch"] > epochs
        return bool(record["samples"] <= samples and not late)
    except (ValueError, KeyError, TypeError):
        return None
