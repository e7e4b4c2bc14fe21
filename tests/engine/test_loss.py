"""Mixup and cross entropy against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dsanet.engine.loss import Targets, correct, cross_entropy, mix


def test_without_mixup_nothing_is_touched() -> None:
    clips = torch.zeros(2, 1, 1, 2, 2, 3, dtype=torch.uint8)
    labels = torch.tensor([0, 1])
    mixed, targets = mix(clips, labels, 0.0, np.random.default_rng(0))
    assert mixed is clips
    assert targets.share == 1.0


def test_mixup_blends_opposite_videos_and_their_losses() -> None:
    rng = np.random.default_rng(3)
    share = np.random.default_rng(3).beta(0.4, 0.4)
    clips = torch.randint(0, 256, (4, 2, 2, 3, 3, 3), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 3])
    mixed, targets = mix(clips, labels, 0.4, rng)
    assert targets.share == pytest.approx(share)
    expected = share * clips.double() + (1 - share) * clips.flip(0).double()
    assert (mixed.double() - expected).abs().max() <= 0.5 + 1e-3  # rounding to bytes
    logits = torch.randn(4, 5)
    log_p = logits.log_softmax(1)
    by_hand = -sum(share * log_p[i, i] + (1 - share) * log_p[i, 3 - i] for i in range(4)) / 4
    torch.testing.assert_close(cross_entropy(logits, targets, 0.0), by_hand)


def test_label_smoothing() -> None:
    logits, labels = torch.randn(3, 4), torch.tensor([1, 0, 3])
    target = torch.full((3, 4), 0.1 / 4)
    target[torch.arange(3), labels] += 0.9
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    found = cross_entropy(logits, Targets(labels, labels, 1.0), 0.1)
    torch.testing.assert_close(found, expected)


def test_the_larger_share_decides_what_is_right() -> None:
    logits = torch.eye(3)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1])
    assert correct(logits, Targets(first, second, 0.7)) == 3
    assert correct(logits, Targets(first, second, 0.3)) == 1
