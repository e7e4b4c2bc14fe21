"""All rows of an index are checked when it is opened, before any of them is used."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shards import ShardError, open_split
from shards.format.index import FRAME_DTYPE, KEY_DTYPE, SAMPLE_DTYPE
from shards.format.row_checks import (
    Bounds,
    find_bad_frame,
    find_bad_key,
    find_bad_label,
    find_bad_sample,
)

FIELDS = [name for name in SAMPLE_DTYPE.names if name != "fps"]
BOUNDS = Bounds(
    tar_sizes=np.array([50_000, 90_000], np.int64),
    frames=100,
    labels=12,
    fragments=np.r_[np.arange(10, 20), np.arange(7, 17)].astype("<u4"),
    classes=6,
    gop=4,
)


def good_rows(count: int, rng: np.random.Generator) -> np.ndarray:
    rows = np.zeros(count, SAMPLE_DTYPE)
    rows["tar"] = rng.integers(2, size=count)
    rows["offset"] = rng.integers(40_000, size=count)
    rows["size"] = rng.integers(20, 10_000, size=count)
    rows["num_frames"] = rng.integers(1, 20, size=count)
    rows["first_frame"] = rng.integers(80, size=count)
    rows["width"], rows["height"], rows["fps"] = 340, 256, 30
    rows["label"] = rng.integers(-1, 6, size=count)
    rows["first_label"], rows["num_labels"] = rng.integers(12, size=count), 1
    groups = -(-rows["num_frames"] // 4)
    rows["first_fragment"] = rng.integers(9 - groups + 1)
    rows["num_fragments"] = groups
    plain = rng.random(count) < 0.3
    rows["first_fragment"][plain], rows["num_fragments"][plain] = -1, 0
    return rows


def is_valid(row: np.void) -> bool:
    """The rules of docs/format.md for one row, in Python's own whole numbers."""
    r = {name: row[name].item() for name in row.dtype.names}
    if not 0 <= r["tar"] < 2 or r["offset"] < 0 or r["size"] < 1:
        return False
    if r["offset"] + r["size"] > BOUNDS.tar_sizes[r["tar"]]:
        return False
    if r["num_frames"] < 1 or not 0 <= r["first_frame"] <= 100 - r["num_frames"]:
        return False
    sides = r["width"], r["height"]
    if min(sides) < 1 or max(sides) > 65_535 or sides[0] * sides[1] > 64_000_000:
        return False
    if not (math.isfinite(r["fps"]) and r["fps"] > 0 and -1 <= r["label"] < 6):
        return False
    if r["first_label"] < 0 or r["num_labels"] < 0 or r["first_label"] + r["num_labels"] > 12:
        return False
    first, count = r["first_fragment"], r["num_fragments"]
    if first == -1:
        return True
    if first < 0 or count != math.ceil(r["num_frames"] / 4) or first + count + 1 > 20:
        return False
    ends = BOUNDS.fragments[first : first + count + 1].tolist()
    return ends == sorted(ends) and ends[-1] <= r["size"]


def test_the_rules_hold_row_by_row():
    """Random values, those at the edges of the types above all, against a plain loop."""
    rng = np.random.default_rng(0)
    assert find_bad_sample(good_rows(500, rng), BOUNDS) is None
    edges = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 5, 6, 12, 99, 100, 65_536, 2**31 - 1, 2**63 - 1]
    for _ in range(3000):
        rows = good_rows(3, rng)
        field = str(rng.choice(FIELDS))
        info = np.iinfo(SAMPLE_DTYPE[field])
        rows[field][1] = np.clip(int(rng.choice(edges)), info.min, info.max)
        bad = find_bad_sample(rows, BOUNDS)
        assert (bad is None) == is_valid(rows[1]), (field, rows[1], bad)
        assert bad is None or bad.number == 1
    for rate in (0.0, -1.0, np.nan, np.inf):
        rows = good_rows(3, rng)
        rows["fps"][2] = rate
        assert find_bad_sample(rows, BOUNDS).number == 2


def test_the_first_bad_frame_is_found():
    frames = np.zeros(600_000, FRAME_DTYPE)
    frames["offset"], frames["size"] = 1000, 500
    assert find_bad_frame(frames, 1500) is None
    assert find_bad_frame(frames[:0], 0) is None
    for row, offset, size in ((0, 1001, 500), (300_000, 2**32 - 1, 500), (599_999, 0, 2**32 - 1)):
        changed = frames.copy()
        changed[row] = offset, size, 0
        assert find_bad_frame(changed, 1500).number == row
    # However large the sample: no frame of 4 GiB.
    frames["size"][7] = 2**32 - 1
    assert find_bad_frame(frames, 1 << 40).number == 7


@pytest.mark.parametrize(
    "key", [b"", b"a\0b", b"a b", b"a\n", b"\x1b[2J", b"../x", b"\xc3\xa9", b"a.b"]
)
def test_a_key_is_made_of_letters_digits_and_two_signs(key):
    keys = np.array([b"fine", b"x" * 80, b"A-b_9"], KEY_DTYPE)
    assert find_bad_key(keys) is None
    keys[1] = key
    assert find_bad_key(keys).number == 1


def test_labels_are_those_of_classes():
    labels = np.array([0, 5, 3], "<i4")
    assert find_bad_label(labels, 6) is None
    assert find_bad_label(labels, 5).number == 1
    assert find_bad_label(np.array([0, -1], "<i4"), 6).number == 1


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("offset", 2**63 - 1, "outside its tar"),
        ("size", 2**62, "outside its tar"),
        ("tar", 99, "its tar is not one of the 1 of the set"),
        ("first_frame", 2**63 - 1, "not in the frame table"),
        ("num_frames", 0, "not in the frame table"),
        ("label", 2, "its label is not below 2"),
        ("num_labels", 2**31 - 1, "its labels are not there"),
        ("width", 0, "width and height"),
        ("height", 2**31 - 1, "width and height"),
        ("fps", np.nan, "frame rate"),
        ("first_fragment", 2**63 - 1, "fragments"),
    ],
)
def test_one_bad_row_refuses_the_set_by_its_number(copy, field, value, reason):
    samples = np.load(copy / "samples.npy")
    samples[field][1] = value
    np.save(copy / "samples.npy", samples)
    with pytest.raises(ShardError, match=rf"samples\.npy is damaged: row 1: .*{reason}.*reindex"):
        open_split(copy.parent, "train")


def test_frames_labels_and_keys_of_a_set_are_checked(copy):
    for name, field, value in (
        ("frames", "size", 2**32 - 1),
        ("labels", ..., 2),
        ("keys", ..., b"a\n"),
    ):
        array = np.load(copy / f"{name}.npy")
        whole = array.copy()
        array[field][2] = value
        np.save(copy / f"{name}.npy", array)
        with pytest.raises(ShardError, match=rf"{name}\.npy is damaged: row 2") as caught:
            open_split(copy.parent, "train")
        assert str(caught.value).isprintable()
        np.save(copy / f"{name}.npy", whole)
    assert len(open_split(copy.parent, "train")) == 3
