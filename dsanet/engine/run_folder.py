"""The files of a run besides its checkpoints: settings, metrics, environment."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsanet.engine.checkpoint import CheckpointFolder
from dsanet.engine.config import TrainConfig, dump
from dsanet.engine.environment import git_state, versions
from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.set_aside import is_there, keep_lines, set_aside
from shards.format.files import naming, write_atomic


class RunFolder:
    """The folder of a run: config.yaml, metrics.jsonl, environment.json, log, checkpoints/.

    keep: number of newest checkpoints to keep, besides the best one.
    """

    def __init__(self, path: str | Path, keep: int = 2) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.environment = self.path / "environment.json"
        self.log = self.path / "log"
        self.quarantine = self.path / "quarantine.jsonl"
        self.profile = self.path / "profile"
        self.checkpoints = CheckpointFolder(self.path / "checkpoints", keep)

    def prepare(
        self, config: TrainConfig, processes: list[str], report: Callable[[str], None]
    ) -> None:
        """Create the folder if there is none, and record settings and environment of this start.

        report: called with a warning for each damaged file.

        Raises:
            UsageError: when the path, or `checkpoints` in it, is a file.
            EngineError: when the folder cannot be written.
        """
        for folder in (self.path, self.checkpoints.path):
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"{folder}: is not a folder; move it away, or give another --out")
        try:
            self.checkpoints.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.config, dump(config).encode())
            self._record_start(processes, report)
            is_there(self.metrics, report)
            if is_there(self.quarantine, report):
                keep_lines(self.quarantine, _is_bad_video, report)
            self.checkpoints.remove_partial()
        except OSError as error:
            raise EngineError(
                f"{error.filename or self.path}: cannot be written ({error.strerror}); give a "
                "folder that can be written to as --out"
            ) from error

    def _previous_starts(self, report: Callable[[str], None]) -> list[Any]:
        """The entries of environment.json; a damaged file is renamed."""
        if not is_there(self.environment, report):
            return []
        with contextlib.suppress(ValueError, RecursionError):
            starts = json.loads(self.environment.read_text(encoding="utf-8"))
            if isinstance(starts, list):
                return starts
        set_aside(self.environment, report)
        return []

    def _record_start(self, processes: list[str], report: Callable[[str], None]) -> None:
        starts = self._previous_starts(report)
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

    def truncate_metrics(self, samples: int, epochs: int, report: Callable[[str], None]) -> None:
        """Remove the records after a position, which a run that continues there writes again.

        Lines that are not records, such as one that a crash has truncated, are moved to
        metrics.jsonl.damaged.

        samples, epochs: the position in samples, and the epochs that are validated.
        report: called with a warning if there are such lines.
        """
        if is_there(self.metrics, report):
            keep_lines(self.metrics, lambda line: _is_earlier(line, samples, epochs), report)

    def add(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with naming(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _is_earlier(line: bytes, samples: int, epochs: int) -> bool | None:
    """Whether a record was made up to a position; None for a line that is not a record."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else {}
        late = record["kind"] in ("val", "epoch") and record["epoch"] > epochs
        return bool(record["samples"] <= samples and not late)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_bad_video(line: bytes) -> bool | None:
    """True for a line of quarantine.jsonl, None for a damaged one."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else {}
        valid = isinstance(entry["split"], str) and type(entry["id"]) is int and entry["id"] >= 0
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return True if valid else None
