"""Scores of videos, averaged over their views, gathered from all processes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from dsanet.engine import execution
from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.accuracy import Average, one_hot
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from dsanet.errors import require
from pipelines import EvalLoader
from shards import Split


def group_views(clips: Tensor, segments: int | None) -> Tensor:
    """Arrange the views of videos as inputs of the network.

    clips: uint8 (B, crops, clips, T, H, W, 3).
    segments: U, the number of snippets that the network mixes; None takes clips one by one, U = 1.

    Returns uint8 (B, crops x G, U, T, H, W, 3) with G = clips / U. Input g of a crop has its clips
    g, g + G, g + 2G, ..., so that each input spans the whole video.

    Raises:
        UsageError: when the number of clips is not a multiple of U.
    """
    length = segments or 1
    count = clips.shape[2]
    must = f"be a multiple of the {length} snippets that the network mixes"
    require(count % length == 0, "clips", must, count, UsageError)
    grouped = clips.unflatten(2, (length, count // length)).transpose(2, 3)
    return grouped.flatten(1, 2).contiguous()


class HostCopy:
    """A copy of a tensor on the CPU, which is queued at once and waited for in `read`."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.to("cpu", non_blocking=True)
        self._ready = None
        if tensor.is_cuda:
            self._ready = torch.cuda.Event()
            self._ready.record()

    def read(self) -> np.ndarray:
        """The copy, once the device has computed the tensor."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._copy.numpy()


@dataclass(frozen=True)
class Scorer:
    """Scores batches of videos: a network, and how its outputs for views are averaged.

    Attributes:
        network: uint8 (B, U, T, H, W, 3) -> logits (B, classes), in evaluation mode.
        segments: U, the number of snippets that it mixes, or None.
        average: average `logits`, as the authors' code does, or the `softmax` of each view.
    """

    network: nn.Module
    segments: int | None
    precision: str
    device: torch.device
    average: Average = "logits"

    def __call__(self, clips: Tensor) -> np.ndarray:
        """float32 scores (B, classes) of clips (B, U, ...) or views (B, crops, clips, ...)."""
        return self.inputs(clips).mean(1).cpu().numpy()

    @torch.inference_mode()
    def inputs(self, clips: Tensor) -> Tensor:
        """float32 scores (B, V, classes) of each of the V inputs of clips or views."""
        views = group_views(clips, self.segments) if clips.ndim == 7 else clips.unsqueeze(1)
        with execution.autocast(self.precision, self.device):
            logits = self.network(views.flatten(0, 1)).float()
        logits = logits.unflatten(0, views.shape[:2])
        if self.average == "softmax":
            logits = logits.softmax(-1)
        return logits


def label_ranks(scores: Tensor, relevant: Tensor) -> Tensor:
    """Places int32 (B, V) of the best label of each video among the classes, for each input.

    scores (B, V, classes), relevant (B, classes) bool. 1 is the highest score. Ties count against
    the label, as in `top_k`. 0 where there is no label, or a score is not a number.
    """
    others = ~relevant[:, None].to(scores.device, non_blocking=True)
    best = scores.masked_fill(others, -torch.inf).amax(-1, True)
    places = (scores >= best).sum(-1, dtype=torch.int32)
    return places * (best[..., 0] > -torch.inf) * (~scores.isnan().any(-1))


@dataclass(frozen=True)
class ScoreTable:
    """Scores of videos: ids int64 (N,), labels int64 (N,), scores float32 (N, classes).

    The result of an evaluation is sorted by id and has each video once. In the table of a batch an
    id of -1 marks a row to ignore. ranks, int32 (N, V): for each input of a video the place of its
    best label among the classes, see `label_ranks`. missing: id -> reason of each video that could
    not be read.
    """

    ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    missing: dict[int, str] = field(default_factory=dict)

    def relevant(self, split: Split) -> np.ndarray:
        """All labels of the table's videos in the split, as bool (N, classes)."""
        return relevant_classes(self.ids, self.labels, split, self.scores.shape[1])


def relevant_classes(ids: np.ndarray, labels: np.ndarray, split: Split, classes: int) -> np.ndarray:
    """All labels of samples `ids` (N,) of a split, as bool (N, classes).

    labels: the first label of each, -1 for none. A row of id -1 has its first label alone.
    """
    relevant = one_hot(labels, classes)
    several = split.samples["num_labels"][np.maximum(ids, 0)] > 1
    for row in np.flatnonzero(several & (ids >= 0)):
        relevant[row, list(split.labels(int(ids[row])))] = True
    return relevant


@dataclass(frozen=True)
class PendingTable:
    """The table of a batch whose scores may still be computed.

    shape: V, classes; outputs: scores and ranks, None for zeros; the rest as in `ScoreTable`.
    """

    ids: np.ndarray
    labels: np.ndarray
    shape: tuple[int, ...]
    outputs: tuple[HostCopy, HostCopy] | None
    missing: dict[int, str]

    def read(self) -> ScoreTable:
        """The table, once the device has computed its scores."""
        if self.outputs is not None:
            scores, ranks = (output.read() for output in self.outputs)
        else:
            scores = np.zeros((len(self.ids), self.shape[1]), np.float32)
            ranks = np.zeros((len(self.ids), self.shape[0]), np.int32)
        return ScoreTable(self.ids, self.labels, scores, ranks, self.missing)


def score_batches(
    scorer: Scorer, loader: EvalLoader, world: World, console: Console, ids: np.ndarray
) -> Iterator[ScoreTable]:
    """Yield the scores of each batch of this process; rows to ignore have id -1.

    The scores of a batch are read after the work on the next one is queued, so that the device
    never waits for the CPU.

    ids: id of each video of the loader, -1 for videos that need no scores.
    """
    previous: PendingTable | None = None
    for pending in itertools.chain(_queue_batches(scorer, loader, ids), [None]):
        if previous is not None:
            yield previous.read()
            console.advance(len(previous.ids) * world.size)
        previous = pending


def _queue_batches(scorer: Scorer, loader: EvalLoader, ids: np.ndarray) -> Iterator[PendingTable]:
    shape: tuple[int, ...] = ()  # V, classes
    for batch in loader:
        batch_ids = np.where(batch.valid, ids[batch.ids], -1)
        labels, outputs = batch.labels.numpy(), None
        if not shape or (batch_ids >= 0).any():
            inputs = scorer.inputs(batch.clips)
            shape = tuple(inputs.shape[1:])
            relevant = relevant_classes(batch.ids, labels, loader.split, shape[1])
            ranks = label_ranks(inputs, torch.from_numpy(relevant))
            outputs = HostCopy(inputs.mean(1)), HostCopy(ranks)
        missing = {int(ids[v]): reason for v, _, reason in batch.replaced if ids[v] >= 0}
        yield PendingTable(batch_ids, labels, shape, outputs, missing)


def score_split(scorer: Scorer, loader: EvalLoader, world: World, console: Console) -> ScoreTable:
    """Score every video of the loader's split; the same table on every process."""
    ids = np.arange(len(loader.split))
    return merge_tables(world, list(score_batches(scorer, loader, world, console, ids)))


def merge_tables(
    world: World, batches: list[ScoreTable], earlier: ScoreTable | None = None
) -> ScoreTable:
    """Merge the tables of all processes into one, sorted by id, without rows to ignore.

    batches: tables of this process; every process must have equally many rows in all.
    earlier: scores from an earlier start, the same on every process.
    """
    names = ("ids", "labels", "scores", "ranks")
    tables = [earlier] if earlier else []
    if batches:
        gathered = {name: _gather(world, [getattr(b, name) for b in batches]) for name in names}
        tables.append(ScoreTable(**gathered, missing=_gather_missing(world, batches)))
    columns = {name: np.concatenate([getattr(t, name) for t in tables]) for name in names}
    # Of a video that two processes scored, the first row counts.
    unique, first = np.unique(columns["ids"], return_index=True)
    first = first[unique >= 0]
    kept = {name: column[first] for name, column in columns.items()}
    return ScoreTable(**kept, missing=tables[-1].missing)


def _gather_missing(world: World, batches: list[ScoreTable]) -> dict[int, str]:
    texts = world.gather_text(json.dumps([item for b in batches for item in b.missing.items()]))
    return dict(sorted((video, reason) for text in texts for video, reason in json.loads(text)))


def _gather(world: World, parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(world.gather(np.concatenate(parts)))
