"""Views of a video: which clips form an input, and what is averaged."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dsanet.engine import UsageError
from dsanet.engine.evaluation import scoring
from dsanet.engine.evaluation.scoring import (
    Scorer,
    ScoreTable,
    group_views,
    label_ranks,
    merge_tables,
    score_batches,
)
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from pipelines import Batch


def views(B: int, C: int, K: int) -> Tensor:
    """uint8 (B, C, K, 1, 1, 1, 3) whose three bytes are the indices of video, crop and clip."""
    out = torch.zeros(B, C, K, 1, 1, 1, 3, dtype=torch.uint8)
    for b, c, k in itertools.product(range(B), range(C), range(K)):
        out[b, c, k] = torch.tensor([b, c, k], dtype=torch.uint8)
    return out


def test_each_input_has_clips_of_one_crop_and_spans_the_video() -> None:
    groups = group_views(views(2, 3, 8), segments=4)
    assert groups.shape == (2, 6, 4, 1, 1, 1, 3)
    for b in range(2):
        inputs = [[tuple(s.flatten().tolist()) for s in group] for group in groups[b]]
        # Pass g of G = 2 takes the clips g, g + 2, g + 4, g + 6 of a crop, in order.
        expected = [[(b, c, g + 2 * u) for u in range(4)] for c in range(3) for g in range(2)]
        assert inputs == expected


def test_a_network_without_segments_takes_clips_one_by_one() -> None:
    groups = group_views(views(1, 3, 10), segments=None)
    assert groups.shape == (1, 30, 1, 1, 1, 1, 3)


def test_a_number_of_clips_that_is_no_multiple_of_the_segments_is_refused() -> None:
    with pytest.raises(UsageError, match=r"clips must be a multiple of the 4 snippets .*, got 6"):
        group_views(views(1, 1, 6), segments=4)


class OrderedNetwork(nn.Module):
    """Logits that depend on the order of the snippets in a group."""

    def forward(self, clips: Tensor) -> Tensor:
        x = clips.flatten(2).float().mean(2)  # (B, U)
        weights = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25], [2.0, 1.0]])
        return x @ weights[: x.shape[1]]


def scorer(average: str = "logits", segments: int | None = 4) -> Scorer:
    return Scorer(OrderedNetwork(), segments, "fp32", torch.device("cpu"), average)  # type: ignore[arg-type]


def random_views() -> Tensor:
    shape = (2, 3, 8, 2, 4, 4, 3)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def test_scores_are_the_mean_over_views() -> None:
    clips, network = random_views(), OrderedNetwork()
    for average in ("logits", "softmax"):
        rows = []
        for c, g in itertools.product(range(3), range(2)):
            logits = network(clips[:, c, g::2])
            rows.append(logits.softmax(-1) if average == "softmax" else logits)
        expected = torch.stack(rows).mean(0).numpy()
        np.testing.assert_allclose(scorer(average)(clips), expected, rtol=1e-5)


def test_scores_depend_on_the_order_of_snippets_but_not_of_crops_and_passes() -> None:
    clips = random_views()
    base = scorer()(clips)
    np.testing.assert_allclose(scorer()(clips.flip(1)), base, rtol=1e-4, atol=1e-4)
    passes = clips[:, :, [1, 0, 3, 2, 5, 4, 7, 6]]
    np.testing.assert_allclose(scorer()(passes), base, rtol=1e-4, atol=1e-4)
    assert not np.allclose(scorer()(clips.flip(2)), base, rtol=1e-2)


class RecordingScorer:
    """Records when a batch is started, and when its scores are read; its scores are its number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        read = scoring.HostCopy.read

        def note(copy: scoring.HostCopy) -> np.ndarray:
            values = read(copy)
            if values.dtype == np.float32:  # scores, not ranks
                self.events.append(f"read {values[0, 0]:g}")
            return values

        monkeypatch.setattr(scoring.HostCopy, "read", note)

    def inputs(self, clips: Tensor) -> Tensor:
        self.events.append(f"start {int(clips)}")
        return torch.full((1, 3, 2), float(clips))


class ThreeBatches(list[Batch]):
    """A loader of one video a batch, whose clips are their number."""

    split = SimpleNamespace(samples={"num_labels": np.ones(3, np.int64)})

    def __init__(self) -> None:
        one = np.ones(1, np.int64)
        clips, labels = torch.arange(3), torch.zeros(3, 1, dtype=torch.int64)
        super().__init__(Batch(clips[n], labels[n], one * n, one > 0) for n in range(3))


def test_the_next_batch_is_started_before_the_scores_of_one_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder: Any = RecordingScorer(monkeypatch)
    batches: Any = ThreeBatches()
    console = Console(enabled=False)
    console.start_progress(3)
    tables = list(score_batches(recorder, batches, World(), console, np.arange(3)))
    assert recorder.events == ["start 0", "start 1", "read 0", "start 2", "read 1", "read 2"]
    assert [(int(t.ids[0]), int(t.scores[0, 0])) for t in tables] == [(0, 0), (1, 1), (2, 2)]
    assert console.done == 3


def test_a_batch_that_needs_no_scores_has_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder: Any = RecordingScorer(monkeypatch)
    batches: Any = ThreeBatches()
    ids = np.array([0, -1, 2])
    tables = list(score_batches(recorder, batches, World(), Console(enabled=False), ids))
    assert recorder.events == ["start 0", "read 0", "start 2", "read 2"]
    assert [int(t.ids[0]) for t in tables] == [0, -1, 2]
    assert tables[1].scores.tolist() == [[0.0, 0.0]]
    assert tables[1].ranks.tolist() == [[0, 0, 0]]


def test_merging_drops_padding_and_duplicates() -> None:
    ids = np.array([2, 0, -1, 1, 2])
    scores = np.arange(5, dtype=np.float32)[:, None]
    rows = ScoreTable(ids, np.array([7, 5, 9, 6, 7]), scores, np.arange(5)[:, None])
    table = merge_tables(World(), [rows])
    assert table.ids.tolist() == [0, 1, 2]
    assert table.labels.tolist() == [5, 6, 7]
    assert table.scores[:, 0].tolist() == [1, 3, 0]
    assert table.ranks[:, 0].tolist() == [1, 3, 0]


def slow_rank(scores: list[float], labels: list[int]) -> int:
    """The place of the best label; among equal scores it comes last."""
    if not labels or any(math.isnan(score) for score in scores):
        return 0
    best = max(scores[label] for label in labels)
    return sum(score >= best for score in scores)


def test_ranks_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (20, 3, 7)).astype(np.float32)
    scores[3, 1, 2] = np.nan
    relevant = rng.random((20, 7)) < 0.2
    ranks = label_ranks(torch.from_numpy(scores), torch.from_numpy(relevant))
    expected = [
        [slow_rank(row.tolist(), np.flatnonzero(labels).tolist()) for row in video]
        for video, labels in zip(scores, relevant, strict=True)
    ]
    assert ranks.tolist() == expected
    assert 0 in relevant.sum(1)
