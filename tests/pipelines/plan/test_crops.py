"""Crop boxes against loops written from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines import AugmentConfig, LoaderUsageError
from pipelines.plan.crops import CROP_DRAWS, TRIES, eval_boxes, random_boxes

SIZES = [(256, 340), (340, 256), (240, 320), (257, 511), (1, 1), (2, 500), (96, 96)]


def draws(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, CROP_DRAWS))


def boxes(config: AugmentConfig, size: tuple[int, int], count: int = 200) -> np.ndarray:
    return random_boxes(*np.full((count, 2), size).T, draws(count), config)


def rrc_loop(height: int, width: int, x: np.ndarray, config: AugmentConfig) -> list[int]:
    """RandomResizedCrop of the released code, with its random numbers from `x`."""
    for attempt in range(TRIES):
        a, r, swap = x[2 + 3 * attempt : 5 + 3 * attempt]
        area = (config.scale[0] + a * (config.scale[1] - config.scale[0])) * height * width
        ratio = config.ratio[0] + r * (config.ratio[1] - config.ratio[0])
        w = max(1, math.floor(math.sqrt(area * ratio) + 0.5))
        h = max(1, math.floor(math.sqrt(area / ratio) + 0.5))
        if swap < 0.5:
            w, h = h, w
        if w <= width and h <= height:
            y0, x0 = int(x[0] * (height - h + 1)), int(x[1] * (width - w + 1))
            return [y0, x0, y0 + h, x0 + w]
    side = min(height, width)
    y0, x0 = (height - side) // 2, (width - side) // 2
    return [y0, x0, y0 + side, x0 + side]


@pytest.mark.parametrize("size", SIZES)
def test_random_resized_crop_equals_the_loop(size):
    config = AugmentConfig()
    expected = [rrc_loop(*size, x, config) for x in draws(200)]
    assert boxes(config, size).tolist() == expected


def test_random_resized_crop_covers_its_range():
    drawn = boxes(AugmentConfig(), (256, 340), 5000)
    h, w = drawn[:, 2] - drawn[:, 0], drawn[:, 3] - drawn[:, 1]
    area = h * w / (256 * 340)
    assert 0.075 < area.min() < 0.09
    assert area.max() > 0.8
    assert (w / h).min() > 0.73
    assert (w / h).max() < 1.36


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["random_resized_crop", "scale_jitter", "multi_scale", "centre"])
def test_boxes_are_whole_and_inside(kind, size):
    drawn = boxes(AugmentConfig(kind=kind), size)
    assert drawn.dtype == np.float32
    assert (drawn == np.round(drawn)).all()
    assert (drawn[:, :2] >= 0).all()
    assert (drawn[:, 2:] > drawn[:, :2]).all()
    assert (drawn[:, 2:] <= size).all()


def test_scale_jitter_is_a_crop_of_the_resized_video():
    drawn = boxes(AugmentConfig(kind="scale_jitter"), (256, 340), 5000)
    sides = drawn[:, 2] - drawn[:, 0]
    assert (sides == drawn[:, 3] - drawn[:, 1]).all()
    # 224 of a short side of 320 and of 256 that was 256: 179.2 and 224 source pixels.
    assert sides.min() == 179
    assert sides.max() == 224
    assert drawn[:, 1].max() > 100  # reaches the right end


def test_multi_scale_draws_the_sides_of_tsn():
    drawn = boxes(AugmentConfig(kind="multi_scale"), (256, 340), 2000)
    sides = {(int(y1 - y0), int(x1 - x0)) for y0, x0, y1, x1 in drawn}
    scales = [256, 224, 192, 168]
    neighbours = {(scales[i], scales[j]) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    assert sides == neighbours


def test_centre_crop_of_the_released_code():
    assert eval_boxes(256, 340, 1, 224, 256).tolist() == [[16, 58, 240, 282]]
    assert eval_boxes(340, 256, 1, 224, 256).tolist() == [[58, 16, 282, 240]]
    # The released code resizes short side 240 to 256: its 224 pixels are 210 source pixels.
    assert eval_boxes(240, 320, 1, 224, 256).tolist() == [[15, 55, 225, 265]]
    assert boxes(AugmentConfig(kind="centre"), (256, 340), 1).tolist() == [[16, 58, 240, 282]]


def test_three_crops_span_the_long_side():
    assert eval_boxes(256, 340, 3, 256, 256).tolist() == [
        [0, 0, 256, 256],
        [0, 42, 256, 298],
        [0, 84, 256, 340],
    ]
    assert eval_boxes(340, 256, 3, 256, 256)[:, 0].tolist() == [0, 42, 84]
    assert eval_boxes(256, 256, 3, 256, 256).tolist() == [[0, 0, 256, 256]] * 3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crops", [1, 3])
def test_evaluation_boxes_are_inside(size, crops):
    drawn = eval_boxes(*size, crops, 224, 256)
    assert (drawn[:, :2] >= 0).all()
    assert (drawn[:, 2:] > drawn[:, :2]).all()
    assert (drawn[:, 2:] <= size).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "resize"},
        {"flip": 1.5},
        {"scale": (0.5, 0.1)},
        {"ratio": (0.0, 1.0)},
        {"short_sides": (200, 320), "kind": "centre"},
        {"short_sides": (200, 320), "kind": "scale_jitter"},
        {"multi_scales": ()},
        {"multi_scales": (1.0, 1.5)},
        {"brightness": -0.1},
        {"saturation": 1.5},
        {"hue": 5.0},
        {"size": 0},
        {"flip_classes": "some"},
        {"repeats": 0},
    ],
)
def test_wrong_settings_are_refused(settings):
    name = next(iter(settings))
    with pytest.raises(LoaderUsageError, match=rf"^augment\.{name} must .*, got "):
        AugmentConfig(**settings)


def test_short_sides_are_checked_only_where_they_are_used():
    assert AugmentConfig(size=288).short_sides == (256, 320)


def test_a_wrong_number_of_crops_is_refused():
    with pytest.raises(LoaderUsageError, match="crops must be 1 or 3, got 2"):
        eval_boxes(256, 340, 2, 224, 256)
