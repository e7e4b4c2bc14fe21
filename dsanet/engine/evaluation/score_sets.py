"""Several score files of the same videos, checked against each other and in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.results import score_metrics
from dsanet.engine.evaluation.score_file import ScoreFile, load_scores


@dataclass(frozen=True)
class Entry:
    """Scores in a comparison, of the videos that all files have."""

    name: str
    scores: ScoreFile
    metrics: dict[str, Any]


def make_entry(name: str, scores: ScoreFile) -> Entry:
    """An entry with its metrics, see `score_metrics`."""
    return Entry(name, scores, {**score_metrics(scores), "protocol": scores.protocol})


def align(paths: Sequence[Path]) -> list[Entry]:
    """Read score files, and take of each the videos that all have, in the same order.

    A video may be missing in a file only where that file's evaluation could not read it.

    Raises:
        UsageError: for files of other videos, labels or classes than the first.
    """
    files = [load_scores(path) for path in paths]
    for path, other in zip(paths[1:], files[1:], strict=True):
        check_same_set(files[0], other, paths[0], path)
    common = files[0].keys
    for other in files[1:]:
        common = np.intersect1d(common, other.keys)
    if not len(common):
        raise UsageError(f"{paths[0]}: no video has scores in all files")
    entries = []
    for path, file in zip(paths, files, strict=True):
        part = take(file, np.sort(common))
        entries.append(make_entry(str(path), part))
    return entries


def check_same_set(first: ScoreFile, other: ScoreFile, first_path: Path, path: Path) -> None:
    """Refuse scores of another class list, of other videos, or with other labels."""
    if other.classes != first.classes:
        pairs = enumerate(zip_longest(first.classes, other.classes))
        at, mine, their = next((i, a, b) for i, (a, b) in pairs if a != b)
        raise UsageError(
            f"{path}: {len(other.classes)} classes, {first_path} has {len(first.classes)}; class "
            f"{at} is {their!r} against {mine!r}; compare scores of the same class list"
        )
    mine, theirs = (np.union1d(file.keys, file.missing) for file in (first, other))
    only = np.setxor1d(mine, theirs)
    if len(only):
        owner = path if only[0] in theirs else first_path
        raise UsageError(
            f"{path}: of other videos than {first_path}: {len(only)} are in one of them alone, "
            f"such as {only[0].decode()} in {owner}; compare scores of the same split"
        )
    common, rows, others = np.intersect1d(first.keys, other.keys, return_indices=True)
    differ = (first.relevant[rows] != other.relevant[others]).any(1)
    if differ.any():
        key = common[differ.argmax()].decode()
        raise UsageError(
            f"{path}: {int(differ.sum())} videos have other labels than in {first_path}, such as "
            f"{key}; compare scores of the same list"
        )


def take(file: ScoreFile, keys: np.ndarray) -> ScoreFile:
    """The videos of these keys, in their order."""
    order = np.argsort(file.keys)
    rows = order[np.searchsorted(file.keys, keys, sorter=order)]
    place = np.full(len(file.keys), -1)
    place[rows] = np.arange(len(rows))
    more = file.more_labels[place[file.more_labels[:, 0]] >= 0]
    columns = {
        name: getattr(file, name)[rows] for name in ("ids", "labels", "scores", "ranks", "keys")
    }
    more_labels = np.stack([place[more[:, 0]], more[:, 1]], axis=1)
    return replace(file, **columns, more_labels=more_labels)
