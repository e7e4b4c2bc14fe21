"""Checks the values of an index against each other: all rows at once, in NumPy.

A reader uses them as offsets, sizes and array indices, so none may lead outside its file, its table
or a sane amount of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shards.format.settings import MAX_PIXELS

MAX_SIDE = 65_535  # pixels; JPEG has 16 bits for it
MAX_FRAME = 2 * MAX_PIXELS  # bytes of an encoded frame; the largest are JPEGs of noise
CHUNK = 1 << 18  # rows of the frame table that are checked at once, so that they stay in the cache
KEY_BYTES = np.zeros(256, bool)
KEY_BYTES[list(b"0123456789-_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\0")] = True


@dataclass(frozen=True)
class Bounds:
    """What the rows of samples.npy may point to.

    tar_sizes: bytes of each tar (int64). frames, labels: rows of these arrays. fragments: the whole
    array (uint32). classes: number of classes. gop: frames in a fragment.
    """

    tar_sizes: np.ndarray
    frames: int
    labels: int
    fragments: np.ndarray
    classes: int
    gop: int


@dataclass(frozen=True)
class BadRow:
    """A row that is out of bounds, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"row {self.number}: {self.reason}"


def find_bad_sample(samples: np.ndarray, bounds: Bounds) -> BadRow | None:
    """The first row of samples.npy (SAMPLE_DTYPE) that breaks a rule, None if there is none."""
    for wrong, reason in _sample_rules(samples, bounds):
        if wrong.any():
            return BadRow(int(np.argmax(wrong)), reason)
    return None


def _sample_rules(s: np.ndarray, bounds: Bounds) -> Iterator[tuple[np.ndarray, str]]:
    """Rows that break a rule, as a mask, and the rule. Later rules rely on the earlier ones."""
    count = len(bounds.tar_sizes)
    yield (s["tar"] < 0) | (s["tar"] >= count), f"its tar is not one of the {count} of the set"
    if not len(s):
        return
    end = bounds.tar_sizes[s["tar"]]
    outside = (s["offset"] < 0) | (s["size"] < 1) | (s["size"] > end - s["offset"])
    yield outside, "its bytes are outside its tar"
    frames = _outside(s["first_frame"], s["num_frames"], bounds.frames)
    yield (s["num_frames"] < 1) | frames, "its frames are not in the frame table"
    yield _bad_size(s["width"], s["height"]), "its width and height are not those of a video"
    yield ~((s["fps"] > 0) & np.isfinite(s["fps"])), "its frame rate is not a positive number"
    label = s["label"]
    yield (label < -1) | (label >= bounds.classes), f"its label is not below {bounds.classes}"
    yield _outside(s["first_label"], s["num_labels"], bounds.labels), "its labels are not there"
    yield from _fragment_rules(s, bounds)


def _fragment_rules(s: np.ndarray, bounds: Bounds) -> Iterator[tuple[np.ndarray, str]]:
    """As `_sample_rules`, for the ends of the fragments; first_fragment is -1 where it has none."""
    first, count = s["first_fragment"], s["num_fragments"].astype(np.int64)
    groups = -(-s["num_frames"].astype(np.int64) // bounds.gop)
    outside = _outside(first, count + 1, len(bounds.fragments)) | (count != groups)
    yield (first < -1) | (first >= 0) & outside, "its fragments are not those of its frames"
    rows = np.flatnonzero(first >= 0)
    if not len(rows):
        return
    fragments, begin = bounds.fragments, first[rows]
    end = begin + count[rows]
    # How many values of the whole array are smaller than the one before them, up to each of them.
    falls = np.r_[0, np.cumsum(fragments[1:] < fragments[:-1])]
    wrong = np.zeros(len(s), bool)
    wrong[rows] = (falls[begin] != falls[end]) | (fragments[end] > s["size"][rows])
    yield wrong, "the ends of its fragments do not ascend within its bytes"


def _outside(first: np.ndarray, count: np.ndarray, rows: int) -> np.ndarray:
    """Whether rows first to first + count are outside an array; no sum here can overflow."""
    return np.asarray((first < 0) | (count < 0) | (first > rows - count.astype(np.int64)))


def _bad_size(width: np.ndarray, height: np.ndarray) -> np.ndarray:
    bad_side = (width < 1) | (height < 1) | (width > MAX_SIDE) | (height > MAX_SIDE)
    return np.asarray(bad_side | (width.astype(np.int64) * height > MAX_PIXELS))


def find_bad_label(labels: np.ndarray, classes: int) -> BadRow | None:
    """The first row of labels.npy that is not the label of a class."""
    wrong = (labels < 0) | (labels >= classes)
    if not wrong.any():
        return None
    number = int(np.argmax(wrong))
    return BadRow(number, f"label {labels[number]} is not below {classes}")


def find_bad_key(keys: np.ndarray) -> BadRow | None:
    """The first row of keys.npy that is not made of letters, digits, - and _ (in ASCII)."""
    if not len(keys):
        return None
    text = np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), -1)
    padding = text == 0
    wrong = padding[:, 0] | (padding[:, :-1] & ~padding[:, 1:]).any(1) | ~KEY_BYTES[text].all(1)
    if not wrong.any():
        return None
    return BadRow(int(np.argmax(wrong)), "the key is not made of letters, digits, - and _")


def find_bad_frame(frames: np.ndarray, largest: int) -> BadRow | None:
    """The first row of frames.npy (FRAME_DTYPE) that is too large or outside of every sample.

    largest: bytes of the largest sample. That a frame is inside its own sample is checked when it
    is read: which rows a sample has would make this check several times as slow.
    """
    for start in range(0, len(frames), CHUNK):
        part = frames[start : start + CHUNK]
        offset, size = part["offset"], part["size"]
        most = min(MAX_FRAME, largest)
        # Quick: unsigned, so that nothing is converted. `last - size` is not negative here.
        last = np.uint32(min(largest, 2**32 - 1))
        if size.max() <= most and not (offset > last - size).any():
            continue
        wrong = (size > most) | (offset.astype(np.int64) + size > largest)
        if wrong.any():
            row = int(np.argmax(wrong))
            reason = f"a frame of {size[row]} bytes at byte {offset[row]} fits no sample of the set"
            return BadRow(start + row, reason)
    return None
