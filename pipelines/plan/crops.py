"""Crop boxes in whole source pixels; each crop is resized once.

A box is (y0, x0, y1, x1), float32 with integer values, 0 <= y0 < y1 <= height. "Short side 256,
then a crop of 224" is the centred box whose side is 224/256 of the short side: the same region
with one interpolation instead of two. On shards with short side 256 the boxes equal those of the
released code; on other sizes an edge differs by at most half a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsanet.errors import check_choices, require
from pipelines.errors import LoaderUsageError

FlipRule = Literal["all", "skip_directional", "swap_directional"]
TRIES = 10  # of RandomResizedCrop, as in torchvision and mmaction2
# Draws 0-1 place the box; 2 is the scale or the pair of sides; RandomResizedCrop takes 3 a try.
CROP_DRAWS = 2 + 3 * TRIES


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation in training: one draw per video, the same for its U * T frames.

    Attributes:
        size: side in pixels of the clips that the network is trained on.
        kind: `random_resized_crop` draws area from `scale` and aspect from `ratio`; `scale_jitter`
            draws the short side from `short_sides`, then a size x size crop; `multi_scale` is the
            crop that TSN and TSM train with, its sides drawn from `multi_scales`; `centre` is the
            centre crop.
        scale: smallest and largest area of random_resized_crop, as shares of the frame.
        ratio: smallest and largest aspect ratio (width / height) of random_resized_crop.
        short_sides: smallest and largest short side to which scale_jitter resizes a video.
        multi_scales: sides of multi_scale, as shares of the short side.
        flip: probability of a horizontal flip.
        flip_classes: classes whose names hold left or right are flipped like `all` others, are not
            flipped (`skip_directional`), or take the label of their mirror image
            (`swap_directional`).
        brightness: largest change x of the brightness; the factor is drawn from 1 - x to 1 + x.
        contrast: largest change x of the contrast; the factor is drawn from 1 - x to 1 + x.
        saturation: largest change x of the saturation; the factor is drawn from 1 - x to 1 + x.
        hue: largest change of the hue, as a share of the colour circle.
        repeats: views drawn of each video in a row; the video is read once.
    """

    size: int = 224
    kind: Literal["random_resized_crop", "scale_jitter", "multi_scale", "centre"] = (
        "random_resized_crop"
    )
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    short_sides: tuple[int, int] = (256, 320)
    multi_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    flip: float = 0.5
    flip_classes: FlipRule = "all"
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        check_choices(self, "augment.", LoaderUsageError)
        for name in ("size", "repeats"):
            value = getattr(self, name)
            _require(value >= 1, name, "be at least 1", value)
        self._check_crops()
        limits = {"flip": 1, "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5}
        for name, most in limits.items():
            value = getattr(self, name)
            _require(0 <= value <= most, name, f"be in [0, {most}]", value)

    def _check_crops(self) -> None:
        (low, high), (narrow, wide) = self.scale, self.ratio
        _require(0 < low <= high <= 1, "scale", "satisfy 0 < low <= high <= 1", self.scale)
        _require(0 < narrow <= wide, "ratio", "satisfy 0 < low <= high", self.ratio)
        if self.kind in ("scale_jitter", "centre"):
            low, high = self.short_sides
            must = f"satisfy {self.size} (augment.size) <= low <= high"
            _require(self.size <= low <= high, "short_sides", must, self.short_sides)
        shares = self.multi_scales
        valid = bool(shares) and all(0 < share <= 1 for share in shares)
        _require(valid, "multi_scales", "be a list of shares in (0, 1]", shares)

    @property
    def colour(self) -> bool:
        """Whether any colour jitter is on."""
        return bool(self.brightness or self.contrast or self.saturation or self.hue)


def _require(condition: bool, name: str, must: str, value: object) -> None:
    require(condition, f"augment.{name}", must, value, LoaderUsageError)


def random_boxes(
    height: np.ndarray, width: np.ndarray, draws: np.ndarray, config: AugmentConfig
) -> np.ndarray:
    """Training boxes (B, 4) for videos of `height` and `width` (B,); draws: (B, CROP_DRAWS)."""
    height, width = np.asarray(height, np.int64), np.asarray(width, np.int64)
    if config.kind == "random_resized_crop":
        h, w, fitted = _area_aspect(height, width, draws[:, 2:], config)
        return _place(height, width, h, w, draws, centred=~fitted)
    if config.kind == "scale_jitter":
        low, high = config.short_sides
        short = low + np.floor(draws[:, 2] * (high - low + 1))
        side = _rounded(np.minimum(height, width) * config.size / short)
        return _place(height, width, side, side, draws)
    if config.kind == "multi_scale":
        return _place(height, width, *_multi_scale(height, width, draws, config), draws)
    side = _rounded(np.minimum(height, width) * config.size / config.short_sides[0])
    return _place(height, width, side, side, np.full_like(draws, 0.5), centred=True)


def eval_boxes(height: int, width: int, crops: int, size: int, short_side: int) -> np.ndarray:
    """Test boxes (C, 4) along the long side: the centre for C = 1; start, middle, end for C = 3.

    LoaderUsageError for another number of crops.
    """
    require(crops in (1, 3), "crops", "be 1 or 3", crops, LoaderUsageError)
    side = max(1, int(min(height, width) * min(size / short_side, 1.0) + 0.5))
    positions = np.array([0.5]) if crops == 1 else np.array([0.0, 0.5, 1.0])
    tall = height > width
    y = np.floor((height - side) * (positions if tall else 0.5)) + np.zeros(crops)
    x = np.floor((width - side) * (0.5 if tall else positions)) + np.zeros(crops)
    return np.stack([y, x, y + side, x + side], axis=-1).astype(np.float32)


def _rounded(side: np.ndarray) -> np.ndarray:
    return np.maximum(1, np.floor(side + 0.5)).astype(np.int64)


def _place(
    height: np.ndarray,
    width: np.ndarray,
    h: np.ndarray,
    w: np.ndarray,
    draws: np.ndarray,
    centred: np.ndarray | bool = False,
) -> np.ndarray:
    """Boxes (B, 4) of size h x w at a random position inside the frame, or centred."""
    room_y, room_x = height - h, width - w
    y = np.where(centred, room_y // 2, np.floor(draws[:, 0] * (room_y + 1)))
    x = np.where(centred, room_x // 2, np.floor(draws[:, 1] * (room_x + 1)))
    return np.stack([y, x, y + h, x + w], axis=-1).astype(np.float32)


def _area_aspect(
    height: np.ndarray, width: np.ndarray, draws: np.ndarray, config: AugmentConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height and width (B,) of RandomResizedCrop, and whether any try fitted the frame (B,).

    Where none fitted, the sides are those of the largest square. As in the release, the aspect is
    drawn uniformly (not log-uniformly) and the sides are swapped half the time.
    """
    tries = draws[:, : 3 * TRIES].reshape(-1, TRIES, 3)
    area = (config.scale[0] + tries[..., 0] * (config.scale[1] - config.scale[0])) * (
        height * width
    )[:, None]
    aspect = config.ratio[0] + tries[..., 1] * (config.ratio[1] - config.ratio[0])
    w, h = _rounded(np.sqrt(area * aspect)), _rounded(np.sqrt(area / aspect))
    swap = tries[..., 2] < 0.5
    w, h = np.where(swap, h, w), np.where(swap, w, h)
    fits = (w <= width[:, None]) & (h <= height[:, None])
    first, fitted = fits.argmax(axis=1), fits.any(axis=1)
    rows, short = np.arange(len(fits)), np.minimum(height, width)
    h, w = np.where(fitted, h[rows, first], short), np.where(fitted, w[rows, first], short)
    return h, w, np.asarray(fitted)


def _multi_scale(
    height: np.ndarray, width: np.ndarray, draws: np.ndarray, config: AugmentConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width (B,) of TSN's crop: two scales that are equal or neighbours in the list."""
    scales = np.array(config.multi_scales)
    index = np.arange(len(scales))
    pairs = np.argwhere(np.abs(index[:, None] - index) <= 1)
    drawn = pairs[np.floor(draws[:, 2] * len(pairs)).astype(np.int64)]
    short = np.minimum(height, width)
    return (
        np.maximum(1, (short * scales[drawn[:, 0]]).astype(np.int64)),
        np.maximum(1, (short * scales[drawn[:, 1]]).astype(np.int64)),
    )
