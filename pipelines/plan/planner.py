"""Plans the epoch order and every random draw, before anything is read.

The order of an epoch is a function of (seed, epoch); the draws of one view of a video are a
function of (seed, epoch, sample id, repeat). Both come from Philox, a counter-based generator:
there is no state to save, and neither ranks nor threads nor the decoder change a draw. Only the raw
stream is used, which NumPy guarantees not to change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsanet.errors import check_choices, require
from pipelines.errors import LoaderUsageError
from pipelines.plan.crops import CROP_DRAWS, AugmentConfig, random_boxes
from pipelines.plan.sampling import SamplingConfig, train_frames
from shards import Split

LANES = 960  # = 2^6 * 3 * 5: any usual number of ranks divides it
LANE_FACTORS = (2, 2, 2, 2, 2, 2, 3, 5)
MASK = (1 << 64) - 1
DRAWS, ORDER, RUNS, REPLACEMENT = range(4)  # purposes of a stream, part of its counter
# Columns of the draws of a view; those of the frames follow the crop's. 1, 6 and 7 are unused.
FLIP, COLOUR, CROP = 0, slice(2, 6), slice(8, 8 + CROP_DRAWS)


def raw_stream(seed: int, epoch: int, purpose: int, count: int, *, sample: int = 0) -> np.ndarray:
    """Raw 64-bit draws (count,) of the stream of (seed, epoch, purpose, sample)."""
    counter = [0, 0, sample & MASK, purpose]
    return np.random.Philox(key=[seed & MASK, epoch & MASK], counter=counter).random_raw(count)


def uniforms(seed: int, epoch: int, ids: np.ndarray, repeats: np.ndarray, count: int) -> np.ndarray:
    """Draws (B, count) in [0, 1) from an independent stream for each (id, repeat)."""
    generator = np.random.Philox(key=[seed & MASK, epoch & MASK])
    state = generator.state  # setting the counter takes a tenth of the time of a new generator
    raw = np.empty((len(ids), count), np.uint64)
    for row, (sample, repeat) in enumerate(zip(ids.tolist(), repeats.tolist(), strict=True)):
        state["state"]["counter"][:] = (0, repeat, sample, DRAWS)
        generator.state = state
        raw[row] = generator.random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class OrderConfig:
    """Order of the videos in an epoch.

    Attributes:
        kind: `random` is a full shuffle. `blocked` shuffles runs of neighbouring videos, so that
            each run is one sequential read. `local` deals whole tars to `shares` equal shares once
            and shuffles each share anew in every epoch.
        block: in blocked order, consecutive videos of a tar in one run; 0: whole tars.
        window: in blocked order, number of videos among which runs are shuffled, for each of the
            960 lanes that an epoch is divided into (docs/loader.md).
        shares: in local order, number of shares. Position p of an epoch draws on share p % shares,
            so a rank needs only the tars of its own shares where the number of ranks divides
            `shares`. More shares suit more numbers of ranks; a global batch of fewer videos than
            `shares` always draws on the same shares.
    """

    kind: Literal["random", "blocked", "local"] = "random"
    block: int = 16
    window: int = 64
    shares: int = 192

    def __post_init__(self) -> None:
        check_choices(self, "loader.order.", LoaderUsageError)
        _require(self.block >= 0, "block", "be at least 0", self.block)
        _require(self.window >= 1, "window", "be at least 1", self.window)
        must = f"divide {LANES} (such as 64, 192 or 320)"
        _require(self.shares >= 1 and LANES % self.shares == 0, "shares", must, self.shares)


def _require(condition: bool, name: str, must: str, value: object) -> None:
    require(condition, f"loader.order.{name}", must, value, LoaderUsageError)


def epoch_order(tars: np.ndarray, seed: int, epoch: int, config: OrderConfig) -> np.ndarray:
    """Sample ids (N,) in the order of one epoch; tars (N,) is the tar number of each sample.

    Position p belongs to lane p % 960 for any number of ranks.
    """
    keys = raw_stream(seed, epoch, ORDER, len(tars))
    if config.kind == "random":
        return np.argsort(keys, kind="stable")
    if config.kind == "local":
        sequence, lanes = _shuffled_runs(tars, seed, 0, 0), config.shares
        lane, position = _deal(len(tars), lanes)
        window = position * 0
    else:
        sequence, lanes = _shuffled_runs(tars, seed, epoch, config.block), LANES
        lane, position = _deal(len(tars), lanes)
        window = position // config.window
    dealt, shuffled = np.lexsort((position, lane)), np.lexsort((keys, window, lane))
    # Both are sorted by lane. Sample i of lane l gets position i * lanes + l in the epoch.
    order = np.empty(len(tars), np.int64)
    order[position[dealt] * lanes + lane[dealt]] = sequence[shuffled]
    return order


def _shuffled_runs(tars: np.ndarray, seed: int, epoch: int, block: int) -> np.ndarray:
    """Sample ids with the runs of `block` consecutive samples of a tar permuted."""
    first = np.flatnonzero(np.r_[True, tars[1:] != tars[:-1]])
    inside = np.arange(len(tars)) - np.repeat(first, np.diff(np.r_[first, len(tars)]))
    starts = inside % block == 0 if block else inside == 0
    run = np.cumsum(starts) - 1
    keys = raw_stream(seed, epoch, RUNS, int(run[-1]) + 1)
    return np.argsort(keys[run], kind="stable")


def _deal(count: int, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Lane, and position in its lane, of each sample of a sequence cut into contiguous shares."""
    shares = lane_shares(lanes)
    sizes = np.empty(lanes, np.int64)
    sizes[shares] = count // lanes + (np.arange(lanes) < count % lanes)
    lane_of_share = np.argsort(shares)
    lane = np.repeat(lane_of_share, sizes)
    position = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return lane, position


def lane_shares(lanes: int = LANES) -> np.ndarray:
    """Share (lanes,) of each lane: the mixed-radix digits of its number, reversed.

    The lanes of rank r of W are r, r + W, ... Reversed digits make their shares neighbours for
    W = 2, 4, ... 64, so that a rank's videos are in neighbouring tars. lanes divides 960.
    """
    lane, share, rest = np.arange(lanes), np.zeros(lanes, np.int64), lanes
    for factor in LANE_FACTORS:
        if rest % factor == 0:
            share = share * factor + lane % factor
            lane, rest = lane // factor, rest // factor
    return share


def check_world(world: int) -> None:
    """Refuse a number of ranks that does not divide the lanes."""
    if LANES % world:
        nearest = max(w for w in range(1, LANES + 1) if LANES % w == 0 and w <= world)
        raise LoaderUsageError(
            f"the number of ranks must divide {LANES}, got {world}; use {nearest} ranks"
        )


def check_batch(size: int) -> None:
    """Refuse a batch without videos."""
    require(size >= 1, "batch_size", "be at least 1", size, LoaderUsageError)


@dataclass
class BatchPlan:
    """Frames, crops and augmentation of B videos with F frames and C crops each.

    ids (B,) sample in the split, -1 for a padded slot; frames (B, F) frame numbers; boxes
    (B, C, 4) in source pixels; flips (B,) bool; colours (B, 4) factors of brightness, contrast,
    saturation, and the turn of the hue in degrees; labels (B,); epoch: whose draws they are.
    """

    ids: np.ndarray
    labels: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray
    colours: np.ndarray
    repeats: np.ndarray
    epoch: int = 0


class TrainPlanner:
    """Plans training views, each a pure function of (seed, epoch, id, repeat)."""

    def __init__(
        self, split: Split, sampling: SamplingConfig, augment: AugmentConfig, seed: int
    ) -> None:
        self.split, self.sampling, self.augment, self.seed = split, sampling, augment, seed
        self.flipped_label = flipped_labels(split.classes, augment.flip_classes)
        self.draws = CROP.stop + sampling.draws()

    def plan(self, epoch: int, ids: np.ndarray, repeats: np.ndarray) -> BatchPlan:
        """Plan the views (id, repeat) of one batch; ids and repeats: (B,)."""
        ids = np.asarray(ids, np.int64)
        x = uniforms(self.seed, epoch, ids, repeats, self.draws)
        rows = self.split.samples[ids]
        labels = rows["label"].astype(np.int64)
        target = self.flipped_label[labels]  # -1: a class that is never flipped
        flips = (x[:, FLIP] < self.augment.flip) & (target >= 0)
        frames = np.stack(
            [
                train_frames(int(n), self.sampling, draws).reshape(-1)
                for n, draws in zip(rows["num_frames"], x[:, CROP.stop :], strict=True)
            ]
        )
        return BatchPlan(
            ids=ids,
            labels=np.where(flips & (labels >= 0), target, labels),
            frames=frames,
            boxes=random_boxes(rows["height"], rows["width"], x[:, CROP], self.augment)[:, None],
            flips=flips,
            colours=_colours(x[:, COLOUR], self.augment),
            repeats=np.asarray(repeats),
            epoch=epoch,
        )


def _colours(x: np.ndarray, augment: AugmentConfig) -> np.ndarray:
    strength = np.array([augment.brightness, augment.contrast, augment.saturation])
    factors = 1 + (2 * x[:, :3] - 1) * strength
    turn = (2 * x[:, 3:] - 1) * augment.hue * 360  # hue 0.1 turns by up to 36 degrees
    return np.hstack([factors, turn]).astype(np.float32)


def flipped_labels(classes: tuple[str, ...], rule: str) -> np.ndarray:
    """Label of the mirror image of each class, -1 where the class must not be flipped.

    The array has one entry more than there are classes, the last, for label -1 (no label).
    """
    labels = np.arange(len(classes) + 1)
    if rule == "all":
        return labels
    names = {name.lower(): index for index, name in enumerate(classes)}
    for name, index in names.items():
        mirrored = _mirrored(name)
        if mirrored != name:
            swap = rule == "swap_directional"
            labels[index] = names.get(mirrored, -1) if swap else -1
    return labels


def _mirrored(name: str) -> str:
    """A class name with left and right exchanged."""
    other = {"left": "right", "right": "left"}
    # Whole words only: "upright" and "cleft" have no direction.
    return re.sub(r"(?<![a-z])(left|right)(?![a-z])", lambda word: other[word[0]], name)


def replacement(sample: int, attempt: int, count: int) -> int:
    """The sample that replaces a broken one: a function of its id and the attempt alone."""
    return int(
        raw_stream(0, 0, REPLACEMENT, attempt + 1, sample=sample)[attempt] % np.uint64(count)
    )
