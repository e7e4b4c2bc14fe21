"""Scores of videos from their views: every video once, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dsanet.engine import execution
from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.accuracy import Average, one_hot
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from pipelines import EvalLoader
from shards import Split


def group_views(clips: Tensor, segments: int | None) -> Tensor:
    """Form the network's inputs from the views of a video.

    uint8 (B, crops, clips, T, H, W, 3) -> (B, crops x passes, U, T, H, W, 3). A network that mixes
    U snippets gets, in pass g of the G = clips / U passes, the clips g, g + G, g + 2G, ... of one
    crop: each group spans the whole video. Others get one clip at a time (U = 1).

    Raises:
        UsageError: when U does not divide the clips.
    """
    length = segments or 1
    count = clips.shape[2]
    if count % length:
        raise UsageError(
            f"this network mixes {length} snippets of a video, which {count} clips do not fill: "
            f"take a multiple, such as --clips {2 * length}"
        )
    grouped = clips.unflatten(2, (length, count // length)).transpose(2, 3)
    return grouped.flatten(1, 2).contiguous()


@dataclass(frozen=True)
class Scorer:
    """The network with its way of averaging views.

    Attributes:
        network: uint8 (B, U, T, H, W, 3) -> logits (B, classes), in evaluation mode.
        segments: U that it mixes, or None.
        average: `logits` as the release does, or `softmax` of each view.
    """

    network: nn.Module
    segments: int | None
    precision: str
    device: torch.device
    average: Average = "logits"

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> np.ndarray:
        """float32 scores (B, classes) of clips (B, U, ...) or views (B, crops, clips, ...)."""
        views = group_views(clips, self.segments) if clips.ndim == 7 else clips.unsqueeze(1)
        with execution.autocast(self.precision, self.device):
            logits = self.network(views.flatten(0, 1)).float()
        logits = logits.unflatten(0, views.shape[:2])
        if self.average == "softmax":
            logits = logits.softmax(-1)
        return logits.mean(1).cpu().numpy()


@dataclass(frozen=True)
class ScoreTable:
    """Scores by video: ids (N,) ascending, labels (N,), scores (N, classes)."""

    ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def relevant(self, split: Split) -> np.ndarray:
        """(N, classes) bool: every class that a video shows, by the split's labels."""
        shown = one_hot(self.labels, self.scores.shape[1])
        for row in np.flatnonzero(split.samples["num_labels"][self.ids] > 1):
            shown[row, list(split.labels(int(self.ids[row])))] = True
        return shown


def score_batches(
    scorer: Scorer, loader: EvalLoader, world: World, console: Console, wanted: np.ndarray
) -> Iterator[ScoreTable]:
    """Scores of this process's batches; a row without a video, or with one not wanted, has id -1.

    wanted: for each video of the loader its id, or -1.
    """
    classes = 0
    for batch in loader:
        ids = np.where(batch.valid, wanted[batch.ids], -1)
        if not classes or (ids >= 0).any():
            scores = scorer(batch.clips)
            classes = scores.shape[1]
        else:
            scores = np.zeros((len(ids), classes), np.float32)
        yield ScoreTable(ids, batch.labels.numpy(), scores)
        console.advance(len(batch.ids) * world.size)


def score_split(scorer: Scorer, loader: EvalLoader, world: World, console: Console) -> ScoreTable:
    """Score every video of the loader's split and gather the table on all processes."""
    wanted = np.arange(len(loader.split))
    return merged(world, list(score_batches(scorer, loader, world, console, wanted)))


def merged(world: World, rows: list[ScoreTable], kept: ScoreTable | None = None) -> ScoreTable:
    """One table of the rows of all processes, which have equally many, and of what was kept."""
    tables = [kept] if kept else []
    if rows:
        columns = ([getattr(r, name) for r in rows] for name in ("ids", "labels", "scores"))
        tables.append(ScoreTable(*(_gathered(world, column) for column in columns)))
    ids, labels, scores = (
        np.concatenate([getattr(t, name) for t in tables]) for name in ("ids", "labels", "scores")
    )
    # A padded slot has no id; a video that two processes scored would be found twice.
    found, first = np.unique(ids, return_index=True)
    first = first[found >= 0]
    return ScoreTable(ids[first], labels[first], scores[first])


def _gathered(world: World, parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(world.gather(np.concatenate(parts)))
