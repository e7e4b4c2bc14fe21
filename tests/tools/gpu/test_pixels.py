"""The comparison of pixels sees faults, and so does the check of the hand-over."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gpu import pixels
from gpu.frames import decode_with_pil, jpegs
from torch.nn import functional as F

from pipelines import resources
from pipelines.resources import GUARD, OutputsInUse


class Output:
    """A DALI output on the CPU: `as_tensor` shares its memory."""

    def __init__(self, value: int) -> None:
        self.pixels = torch.full((2, 3), value, dtype=torch.uint8)

    def as_tensor(self) -> torch.Tensor:
        return self.pixels


def events(done: list[bool]) -> list[SimpleNamespace]:
    return [SimpleNamespace(query=lambda done=one: done) for one in done]


def test_memory_is_overwritten_once_it_is_given_back_and_not_before() -> None:
    batches = [(Output(value),) for value in range(5)]
    kept = pixels.Poisoned()
    for event, batch in zip(events([False, False, False, True, True]), batches, strict=True):
        kept.add(event, batch)
        # A batch is given back once the event of the batch GUARD later has passed.
    values = [int(batch[0].pixels[0, 0]) for batch in batches]
    assert values == [0, 1, 2, 3, 4]  # the event of the third batch guards the first
    kept = pixels.Poisoned()
    for event, batch in zip(events([True] * 5), batches, strict=True):
        kept.add(event, batch)
    values = [int(batch[0].pixels[0, 0]) for batch in batches]
    assert values == [pixels.POISON] * (5 - GUARD) + [3, 4]


def test_without_a_guard_each_batch_is_overwritten_at_once() -> None:
    batch = (Output(7),)
    with pixels.poisoned(pixels.Unguarded):
        resources.OutputsInUse().add(events([False])[0], batch)
    assert int(batch[0].pixels[0, 0]) == pixels.POISON
    assert resources.OutputsInUse is OutputsInUse


def test_the_reference_cuts_resizes_and_flips() -> None:
    """Against interpolate in float on the cut of PIL's pixels."""
    wholes = [decode_with_pil(image) for image in jpegs(pixels.SIDES)]
    boxes, flips = pixels.random_boxes(3), np.arange(len(wholes)) % 2 == 0
    found = pixels.reference(wholes, boxes, flips, 48)
    for row, whole in enumerate(wholes):
        assert whole.shape[:2] == pixels.SIDES[row]
        for crop in range(3):
            y0, x0, y1, x1 = boxes[row, crop].astype(int)
            cut = torch.from_numpy(whole[y0:y1, x0:x1].copy()).permute(2, 0, 1)[None].float()
            expected = F.interpolate(cut, (48, 48), mode="bilinear").permute(0, 2, 3, 1)[0]
            expected = expected.flip(1) if flips[row] else expected
            error = (torch.from_numpy(found[row, crop]).float() - expected).abs()
            assert error.max() <= 1.001  # two roundings, and that of float32


def test_boxes_lie_inside_and_some_have_odd_sides() -> None:
    boxes = pixels.random_boxes(3)
    sides = np.array(pixels.SIDES)[:, None]
    assert (boxes[..., :2] >= 0).all()
    assert (boxes[..., 2:] <= sides).all()
    assert ((boxes[..., 2:] - boxes[..., :2]) % 2 == 1).any()


@pytest.mark.parametrize(("change", "passed"), [(0, True), (1, True), (3, False)])
def test_a_comparison_reports_the_frame_that_differs_most(job, change: int, passed: bool) -> None:
    expected = np.full((4, 8, 8, 3), 100, np.uint8)
    found = expected.copy()
    found[2] += change
    pixels._compare(job, "x", found, expected, mean=1.0)
    row = job.report.rows[-1]
    assert row["passed"] is passed
    assert (row["worst_frame"], row["largest"]) == (change, change)


def test_one_pixel_far_off_fails_a_comparison(job) -> None:
    expected = np.zeros((4, 64, 64, 3), np.uint8)
    found = expected.copy()
    found[0, 0, 0, 0] = 200
    pixels._compare(job, "x", found, expected, mean=1.0)
    assert job.report.rows[-1]["passed"] is False
