"""Mixup, cutmix and cross entropy against their formulas."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch

from dsanet.engine.loss import (
    LossConfig,
    Targets,
    correct,
    cross_entropy,
    cut_boxes,
    cutmix,
    mix,
    mixup,
)


def random_clips(B: int, height: int = 5, width: int = 7) -> torch.Tensor:
    rng = np.random.default_rng(B)
    return torch.from_numpy(rng.integers(0, 256, (B, 2, 3, height, width, 3), dtype=np.uint8))


def test_without_mixing_clips_and_labels_are_unchanged() -> None:
    clips, labels = random_clips(2), torch.tensor([0, 1])
    mixed, targets = mix(clips, labels, LossConfig(), np.random.default_rng(0))
    assert mixed is clips
    assert targets.second is None


def test_mixup_blends_opposite_videos_and_their_losses() -> None:
    rng = np.random.default_rng(3)
    share = np.random.default_rng(3).beta(0.4, 0.4)
    clips, labels = random_clips(4), torch.tensor([0, 1, 2, 3])
    mixed, targets = mix(clips, labels, LossConfig(mixup=0.4), rng)
    assert targets.share is not None
    assert targets.share.tolist() == pytest.approx([share] * 4)
    expected = share * clips.double() + (1 - share) * clips.flip(0).double()
    assert (mixed.double() - expected).abs().max() <= 0.5 + 1e-3  # rounding to bytes
    logits = torch.randn(4, 5)
    log_p = logits.log_softmax(1)
    expected_loss = -sum(share * log_p[i, i] + (1 - share) * log_p[i, 3 - i] for i in range(4)) / 4
    torch.testing.assert_close(cross_entropy(logits, targets, 0.0), expected_loss)


@pytest.mark.parametrize(("B", "height", "width"), [(4, 32, 32), (5, 9, 16), (1, 8, 8)])
def test_cutmix_pastes_one_box_into_all_frames_of_a_pair(B: int, height: int, width: int) -> None:
    clips, labels = random_clips(B, height, width), torch.arange(B)
    boxes = cut_boxes((B + 1) // 2, height, width, 1.0, np.random.default_rng(7))
    mixed, targets = cutmix(clips, labels, 1.0, np.random.default_rng(7))
    expected, shares = clips.clone(), []
    for video in range(B):
        top, left, bottom, right = boxes[min(video, B - 1 - video)]
        outside = 0
        for y, x in itertools.product(range(height), range(width)):
            if top <= y < bottom and left <= x < right:
                expected[video, :, :, y, x] = clips[B - 1 - video, :, :, y, x]
            else:
                outside += 1
        shares.append(outside / (height * width))
    assert torch.equal(mixed, expected)
    assert mixed.is_contiguous()
    assert mixed.dtype == torch.uint8
    assert targets.share is not None
    assert targets.share.tolist() == pytest.approx(shares)
    assert targets.second is not None
    assert targets.second.tolist() == list(range(B))[::-1]
    logits = torch.randn(B, B + 1)
    log_p = logits.log_softmax(1)
    terms = [s * log_p[i, i] + (1 - s) * log_p[i, B - 1 - i] for i, s in enumerate(shares)]
    torch.testing.assert_close(cross_entropy(logits, targets, 0.0), -sum(terms) / B)


def test_boxes_are_as_large_as_drawn_and_cut_off_at_the_edges() -> None:
    height, width = 200, 300
    boxes = cut_boxes(4000, height, width, 1.0, np.random.default_rng(0))
    assert (boxes >= 0).all()
    assert (boxes <= [height, width, height, width]).all()
    # Independently: sides of sqrt(1 - lambda), lambda uniform for alpha 1, centres uniform.
    rng, areas = np.random.default_rng(1), []
    for _ in range(4000):
        side = np.sqrt(rng.random())
        y, x = rng.random(2)
        tall, wide = (min(c + side / 2, 1) - max(c - side / 2, 0) for c in (y, x))
        areas.append(tall * wide)
    result = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / (height * width)
    quantiles = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(
        np.quantile(result, quantiles), np.quantile(areas, quantiles), atol=0.03
    )
    assert len({tuple(box) for box in boxes}) > 3900


def test_with_both_each_pass_uses_one_of_them_with_equal_probability() -> None:
    clips, labels, config = random_clips(4, 16, 16), torch.arange(4), LossConfig(0.0, 0.3, 0.8)
    cuts = 0
    for seed in range(400):
        mixed, targets = mix(clips, labels, config, np.random.default_rng(seed))
        again = np.random.default_rng(seed)
        cut = again.random() < 0.5
        expected, same = (cutmix if cut else mixup)(clips, labels, 0.8 if cut else 0.3, again)
        assert torch.equal(mixed, expected)
        assert targets.share is not None
        assert torch.equal(targets.share, same.share)
        cuts += cut
    assert 160 < cuts < 240


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Raise where the CPU waits for the GPU."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*prototype feature")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("raises", [False, True])
def test_the_mode_that_forbids_waiting_warns_nobody_and_ends(
    raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []

    def set_mode(mode: str) -> None:
        modes.append(mode)
        if mode != "default":
            text = "Synchronization debug mode is a prototype feature and does not yet detect all"
            warnings.warn(text, stacklevel=2)
            if raises:
                raise RuntimeError("no GPU")

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with pytest.raises(RuntimeError) if raises else nullcontext(), no_synchronisation():
        assert modes == ["error"]
    assert modes == ["error", "default"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("config", [LossConfig(mixup=0.4), LossConfig(cutmix=1.0)])
def test_mixing_on_a_gpu_equals_that_on_the_cpu_and_does_not_synchronise(
    config: LossConfig,
) -> None:
    clips, labels, logits = random_clips(4, 32, 32), torch.arange(4), torch.randn(4, 4)
    expected, targets = mix(clips, labels, config, np.random.default_rng(1))
    on_gpu = [x.cuda() for x in (clips, labels, logits)]
    with no_synchronisation():
        mixed, result = mix(on_gpu[0], on_gpu[1], config, np.random.default_rng(1))
        loss, right = cross_entropy(on_gpu[2], result, 0.1), correct(on_gpu[2], result)
    assert (mixed.cpu().int() - expected.int()).abs().max() <= 1  # rounding of a blend
    torch.testing.assert_close(loss.cpu(), cross_entropy(logits, targets, 0.1))
    assert right.item() == correct(logits, targets)


def test_label_smoothing() -> None:
    logits, labels = torch.randn(3, 4), torch.tensor([1, 0, 3])
    target = torch.full((3, 4), 0.1 / 4)
    target[torch.arange(3), labels] += 0.9
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    result = cross_entropy(logits, Targets(labels), 0.1)
    torch.testing.assert_close(result, expected)


def test_a_prediction_is_correct_if_it_is_the_class_of_the_larger_share() -> None:
    logits = torch.eye(3)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1])
    assert correct(logits, Targets(first, second, torch.tensor([0.7, 0.7, 0.7]))) == 3
    assert correct(logits, Targets(first, second, torch.tensor([0.7, 0.3, 0.3]))) == 2
    assert correct(logits, Targets(second)) == 1
