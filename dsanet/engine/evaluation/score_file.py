"""scores.npz: the scores of a split, and all that is needed to compare them with others."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.accuracy import Average, one_hot, softmax
from dsanet.engine.evaluation.scoring import ScoreTable
from shards import Split

NAME = "scores.npz"
# What NumPy raises for a file that is no .npz, holds objects, or is cut short.
UNREADABLE = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class ScoreFile:
    """Scores of N videos with their labels and keys.

    Attributes:
        ids: index of each video in its split (N,).
        labels: first label of each (N,), -1 for none.
        scores: float32 (N, classes), averaged over the inputs of a video.
        ranks: place of the best label in each input, int32 (N, V); see `ScoreTable`.
        keys: name of each video in its shard set, (N,) of bytes.
        missing: keys of the videos that could not be read.
        more_labels: further labels of videos that have several: (row, class), int64 (M, 2).
        classes: class names, in the order of the scores.
        protocol: the test protocol, as in metrics.json.
    """

    ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    keys: np.ndarray
    missing: np.ndarray
    more_labels: np.ndarray
    classes: tuple[str, ...]
    protocol: dict[str, Any]

    @property
    def relevant(self) -> np.ndarray:
        """All labels, as bool (N, classes)."""
        relevant = one_hot(self.labels, len(self.classes))
        relevant[self.more_labels[:, 0], self.more_labels[:, 1]] = True
        return relevant

    @property
    def average(self) -> Average:
        """What the scores are means of."""
        return "softmax" if self.protocol["average"] == "softmax" else "logits"

    @property
    def probabilities(self) -> np.ndarray:
        """float64 probabilities (N, classes): the softmax of averaged logits, or the averages."""
        if self.average == "softmax":
            return self.scores.astype(np.float64)
        return softmax(self.scores)

    def to_bytes(self) -> bytes:
        """The content of the file."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            ids=self.ids,
            labels=self.labels,
            scores=self.scores,
            ranks=self.ranks,
            keys=self.keys,
            missing=self.missing,
            more_labels=self.more_labels,
            classes=np.array(self.classes),
            protocol=np.array(json.dumps(self.protocol)),
        )
        return buffer.getvalue()


def score_file(table: ScoreTable, split: Split, protocol: dict[str, Any]) -> ScoreFile:
    """The score file of an evaluated split."""
    relevant = table.relevant(split) & ~one_hot(table.labels, len(split.classes))
    return ScoreFile(
        ids=table.ids,
        labels=table.labels,
        scores=table.scores,
        ranks=table.ranks,
        keys=_keys(split.key(int(i)) for i in table.ids),
        missing=_keys(split.key(video) for video in table.missing),
        more_labels=np.argwhere(relevant),
        classes=tuple(split.classes),
        protocol=protocol,
    )


def _keys(keys: Any) -> np.ndarray:
    encoded = [key.encode() for key in keys]
    return np.array(encoded) if encoded else np.zeros(0, "S1")


def load_scores(path: Path) -> ScoreFile:
    """Read a score file, or that of an evaluation's folder.

    Raises:
        UsageError: when it is missing, damaged, or of a version without keys and classes.
    """
    path = path / NAME if path.is_dir() else path
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; give the scores.npz of evaluations") from None
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path}: not a score file, or damaged ({reason})") from None
    if {"ids", "labels", "scores"} <= set(arrays) and "keys" not in arrays:
        raise UsageError(
            f"{path}: written by an older version, without the keys of the videos; run its eval.py "
            "again"
        )
    return _checked(path, arrays)


def _checked(path: Path, arrays: dict[str, np.ndarray]) -> ScoreFile:
    names = ("ids", "labels", "scores", "ranks", "keys", "missing", "more_labels")
    try:
        columns = {name: arrays[name] for name in names}
        classes = tuple(str(name) for name in arrays["classes"].tolist())
        protocol = json.loads(str(arrays["protocol"]))
        videos = len(columns["ids"])
        lengths = {len(columns[name]) for name in ("labels", "scores", "ranks", "keys")}
        fits = lengths <= {videos} and columns["scores"].shape == (videos, len(classes))
        fits = fits and isinstance(protocol, dict) and "average" in protocol
    except (KeyError, ValueError, TypeError, IndexError):
        fits = False
    if not fits:
        raise UsageError(f"{path}: not a score file, or damaged; run its eval.py again")
    return ScoreFile(**columns, classes=classes, protocol=protocol)
