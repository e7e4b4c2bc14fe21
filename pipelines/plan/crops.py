"""Where a video is cropped: every crop is a box of whole source pixels, resized once.

A box is (y0, x0, y1, x1), float32 holding whole numbers, with 0 <= y0 < y1 <= height. Arguments
are arrays over a batch of B videos. "Short side 256, then a crop of 224" is the centred box whose
side is 224/256 of the short side: the same pixels with one interpolation instead of two. On
shards with short side 256 the boxes are the reference's to the pixel; on other sizes a rounded
edge lies at most half a pixel beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.errors import LoaderUsageError

KINDS = ("random_resized_crop", "scale_jitter", "multi_scale", "centre")
FLIPS = ("all", "skip_directional", "swap_directional")
TRIES = 10  # of RandomResizedCrop, as in every implementation of it
# Draws 0-1 place the box, 2 is the scale, 3-4 the sides of multi_scale, the rest the tries.
CROP_DRAWS = 2 + 3 * TRIES


@dataclass(frozen=True)
class AugmentConfig:
    """What happens to the pixels in training: one draw per video, the same for its U * T frames.

    kind: `random_resized_crop` (area `scale`, aspect `ratio`); `scale_jitter` (short side drawn
    from `short_sides`, then a random size x size crop); `multi_scale` (TSN: sides drawn from
    `multi_scales` of the short side); `centre` (none). flip_classes: what a flip means for classes
    whose name holds left or right. brightness, contrast, saturation: factors drawn from 1 - x to
    1 + x; hue: turns of up to x of the colour circle. repeats: views drawn of one video in a row,
    read once.
    """

    size: int = 224
    kind: str = "random_resized_crop"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    short_sides: tuple[int, int] = (256, 320)
    multi_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    flip: float = 0.5
    flip_classes: str = "all"
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LoaderUsageError(
                f"augment.kind is {self.kind!r}: choose one of {', '.join(KINDS)}"
            )
        if self.flip_classes not in FLIPS:
            raise LoaderUsageError(
                f"augment.flip_classes is {self.flip_classes!r}: choose one of {', '.join(FLIPS)}"
            )
        if not 0 <= self.flip <= 1:
            raise LoaderUsageError(f"augment.flip is {self.flip}: give a probability, 0 to 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise LoaderUsageError(f"augment.scale is {self.scale}: give 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise LoaderUsageError(f"augment.ratio is {self.ratio}: give 0 < low <= high")
        uses_sides = self.kind in ("scale_jitter", "centre")
        if uses_sides and not self.size <= self.short_sides[0] <= self.short_sides[1]:
            raise LoaderUsageError(
                f"augment.short_sides is {self.short_sides}: give size {self.size} <= low <= high"
            )
        if not self.multi_scales or not all(0 < scale <= 1 for scale in self.multi_scales):
            raise LoaderUsageError(
                f"augment.multi_scales is {self.multi_scales}: give shares of the short side, each "
                "more than 0 and at most 1"
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in ("size", "repeats"):
            if (value := getattr(self, name)) < 1:
                raise LoaderUsageError(f"augment.{name} is {value}: give 1 or more")
        for name, most in {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5}.items():
            if not 0 <= (value := getattr(self, name)) <= most:
                raise LoaderUsageError(f"augment.{name} is {value}: give 0 to {most}")

    @property
    def colour(self) -> bool:
        """Whether colours are jittered at all."""
        return bool(self.brightness or self.contrast or self.saturation or self.hue)


def random_boxes(
    height: np.ndarray, width: np.ndarray, draws: np.ndarray, config: AugmentConfig
) -> np.ndarray:
    """Training boxes (B, 4) of videos of height, width (B,) from draws (B, CROP_DRAWS)."""
    height, width = np.asarray(height, np.int64), np.asarray(width, np.int64)
    if config.kind == "random_resized_crop":
        sides = _area_aspect(height, width, draws[:, 2:], config)
        return _placed(height, width, *sides[:2], draws, centred=~sides[2])
    if config.kind == "scale_jitter":
        low, high = config.short_sides
        short = low + np.floor(draws[:, 2] * (high - low + 1))
        side = _rounded(np.minimum(height, width) * config.size / short)
        return _placed(height, width, side, side, draws)
    if config.kind == "multi_scale":
        return _placed(height, width, *_multi_scale(height, width, draws, config), draws)
    side = _rounded(np.minimum(height, width) * config.size / config.short_sides[0])
    return _placed(height, width, side, side, np.full_like(draws, 0.5), centred=True)


def eval_boxes(height: int, width: int, crops: int, size: int, short_side: int) -> np.ndarray:
    """Boxes (C, 4) along the long side: C = 1 the centre; C = 3 its start, middle and end."""
    if crops not in (1, 3):
        raise LoaderUsageError(f"{crops} crops: give 1 or 3")
    side = max(1, int(min(height, width) * min(size / short_side, 1.0) + 0.5))
    places = np.array([0.5]) if crops == 1 else np.array([0.0, 0.5, 1.0])
    tall = height > width
    y = np.floor((height - side) * (places if tall else 0.5)) + np.zeros(crops)
    x = np.floor((width - side) * (0.5 if tall else places)) + np.zeros(crops)
    return np.stack([y, x, y + side, x + side], axis=-1).astype(np.float32)


def _rounded(side: np.ndarray) -> np.ndarray:
    return np.maximum(1, np.floor(side + 0.5)).astype(np.int64)


def _placed(
    height: np.ndarray,
    width: np.ndarray,
    h: np.ndarray,
    w: np.ndarray,
    draws: np.ndarray,
    centred: np.ndarray | bool = False,
) -> np.ndarray:
    """Put boxes of h x w anywhere inside, or in the middle where `centred`."""
    room_y, room_x = height - h, width - w
    y = np.where(centred, room_y // 2, np.floor(draws[:, 0] * (room_y + 1)))
    x = np.where(centred, room_x // 2, np.floor(draws[:, 1] * (room_x + 1)))
    return np.stack([y, x, y + h, x + w], axis=-1).astype(np.float32)


def _area_aspect(
    height: np.ndarray, width: np.ndarray, draws: np.ndarray, config: AugmentConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sides of RandomResizedCrop, and whether a try fitted: else the largest centred square.

    As in the release: area uniform, aspect uniform (not log-uniform), sides swapped half the time.
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
    first, found = fits.argmax(axis=1), fits.any(axis=1)
    rows, short = np.arange(len(fits)), np.minimum(height, width)
    h, w = np.where(found, h[rows, first], short), np.where(found, w[rows, first], short)
    return h, w, np.asarray(found)


def _multi_scale(
    height: np.ndarray, width: np.ndarray, draws: np.ndarray, config: AugmentConfig
) -> tuple[np.ndarray, np.ndarray]:
    """TSN's sides: h and w from the list of scales, at most one place apart in it."""
    scales = np.array(config.multi_scales)
    index = np.arange(len(scales))
    pairs = np.argwhere(np.abs(index[:, None] - index) <= 1)
    chosen = pairs[np.floor(draws[:, 2] * len(pairs)).astype(np.int64)]
    short = np.minimum(height, width)
    return (
        np.maximum(1, (short * scales[chosen[:, 0]]).astype(np.int64)),
        np.maximum(1, (short * scales[chosen[:, 1]]).astype(np.int64)),
    )
