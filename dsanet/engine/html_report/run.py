"""Everything that a run folder says about its run, read without starting anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsanet.engine.command_line import load_saved
from dsanet.engine.config import plain
from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.score_file import ScoreFile, load_scores
from dsanet.engine.run_folder import RunFolder
from dsanet.errors import UserError
from shards.format.manifest import read_manifest

MAX_BYTES = 1 << 30  # of one file that a report reads


@dataclass(frozen=True)
class Evaluation:
    """A folder that eval.py has written: the content of its metrics.json and scores.npz."""

    folder: Path
    metrics: dict[str, Any]
    scores: ScoreFile


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        name: the folder's name, which is unique in a report.
        config: all settings, nested.
        records: of metrics.jsonl, in their order.
        starts: of environment.json: command, versions, git state of each start.
        quarantine: entries of quarantine.jsonl.
        refused: verdicts of the sources that are not in the training split.
        data: manifest of the training split, None where the shards are not there.
        warnings: what could not be read.
    """

    path: Path
    name: str
    config: dict[str, Any]
    records: list[dict[str, Any]]
    starts: list[dict[str, Any]]
    quarantine: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    evaluations: list[Evaluation]
    data: dict[str, Any] | None
    warnings: list[str] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Records of one kind: train, epoch or val."""
        return [record for record in self.records if record["kind"] == kind]


def read_runs(paths: list[Path], data: Path | None) -> list[Run]:
    """Read run folders, with distinct names.

    data: folder of the shard set, where it is not the one that the runs were trained on.

    Raises:
        UsageError: when a folder is not that of a run, or is given twice.
    """
    resolved = [path.resolve() for path in paths]
    if twice := next((p for p in resolved if resolved.count(p) > 1), None):
        raise UsageError(f"{twice}: given twice; name each run once")
    names = [path.name for path in resolved]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{path.name}" for path in resolved]
    return [_read_run(path, name, data) for path, name in zip(paths, names, strict=True)]


def _read_run(path: Path, name: str, data: Path | None) -> Run:
    folder = RunFolder(path)
    config = plain(load_saved(folder.config))
    warnings: list[str] = []
    split = (data or Path(config["data"])) / config["split"]
    manifest = None
    try:
        manifest = read_manifest(split)
    except UserError as error:
        warnings.append(str(error))
    evaluations = [
        evaluation
        for metrics in sorted(path.glob("*/metrics.json"))
        if (evaluation := _read_evaluation(metrics.parent, warnings))
    ]
    return Run(
        path,
        name,
        config,
        [r for r in _read_lines(folder.metrics, warnings) if "kind" in r and "epoch" in r],
        _read_starts(folder.environment, warnings),
        list(_read_lines(folder.quarantine, warnings)),
        [v for v in _read_lines(split / "sources.jsonl", warnings) if v.get("status") != "ok"],
        evaluations,
        manifest,
        warnings,
    )


def _read_text(path: Path) -> str:
    """Content of a regular file of a limited size; "" where there is none."""
    if not path.is_file():
        return ""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
    return path.read_text(encoding="utf-8")


def _read_lines(path: Path, warnings: list[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file with one in each line; others are counted in a warning."""
    damaged = 0
    try:
        lines = _read_text(path).split("\n")
    except (OSError, ValueError) as error:
        warnings.append(f"{path}: cannot be read ({error})")
        return
    for line in filter(None, lines):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict):
            yield entry
        else:
            damaged += 1
    if damaged:
        warnings.append(f"{path}: {damaged} damaged lines are left out")


def _read_starts(path: Path, warnings: list[str]) -> list[dict[str, Any]]:
    try:
        starts = json.loads(_read_text(path) or "[]")
    except (OSError, ValueError, RecursionError) as error:
        warnings.append(f"{path}: cannot be read ({error})")
        return []
    return [start for start in starts if isinstance(start, dict)]


def _read_evaluation(folder: Path, warnings: list[str]) -> Evaluation | None:
    """An evaluation; None, with a warning, where its files are damaged."""
    try:
        metrics = json.loads(_read_text(folder / "metrics.json"))
        if not isinstance(metrics, dict) or "protocol" not in metrics:
            raise ValueError("not written by eval.py")
        return Evaluation(folder, metrics, load_scores(folder))
    except (OSError, ValueError, RecursionError, UserError) as error:
        warnings.append(f"{folder}: left out, its scores cannot be read ({error})")
        return None
