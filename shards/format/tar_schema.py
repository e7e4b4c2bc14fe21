"""Checks the JSON and the arrays in a tar before an index is made of them.

A tar may come from a stranger. Every function raises ValueError with what is wrong.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from shards.format.arrays import parse_header
from shards.format.index import FRAME_DTYPE, MAX_KEY
from shards.format.manifest_schema import MAX_TAR, SHA256
from shards.format.row_checks import find_bad_frame
from shards.format.settings import CODECS, MAX_PIXELS, STATUSES

KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY}}}")
SPLIT = re.compile(r"[A-Za-z0-9_-]{1,60}")
MAX_TARS = 1_000_000  # its number has six digits in a tar's name
MAX_LABEL = 1 << 31


def check_plan(record: Any) -> None:
    """Check the record of a build: what names files, and what the manifest takes over."""
    _require(isinstance(record, dict), "the record is not a JSON object")
    _require(_matches(SPLIT, record.get("split")), "the record has no valid name of a split")
    for name in ("settings", "versions"):
        _require(isinstance(record.get(name), dict), f"the record has no {name}")
    _require("av" in record["versions"], "the record has no version of av")
    _require(isinstance(record.get("fingerprint"), str), "the record has no fingerprint")
    _require(_is_number(record.get("tars"), MAX_TARS), "the record has no number of tars")


def check_record(record: Any) -> None:
    """Check the record of a tar: that of the build, and the verdicts, which the lists are of."""
    check_plan(record)
    _require(_is_list(record.get("classes"), str), "the record has no list of class names")
    _check_verdicts(record.get("verdicts"), len(record["classes"]))


def check_finished(saved: Any) -> None:
    """Check what a build has saved of a finished tar."""
    _require(isinstance(saved, dict), "it is not a JSON object")
    valid = _matches(SHA256, saved.get("sha256")) and _is_number(saved.get("size"), MAX_TAR)
    _require(valid, "the SHA-256 or the size is not valid")
    _check_verdicts(saved.get("verdicts"), MAX_LABEL)


def _check_verdicts(verdicts: Any, classes: int) -> None:
    _require(_is_list(verdicts, dict), "there is no list of verdicts")
    for verdict in verdicts:
        _check_verdict(verdict, classes)


def _check_verdict(verdict: Mapping[str, Any], classes: int) -> None:
    valid = (
        isinstance(verdict.get("key"), str)
        and verdict.get("status") in STATUSES
        and _are_labels(verdict.get("labels"), classes)
        and (verdict["status"] != "ok" or _is_number(verdict.get("frames"), MAX_LABEL))
    )
    _require(valid, "the record has a verdict that is not valid")


def check_metadata(metadata: Any, key: str, classes: int) -> None:
    """Check the description of the sample whose members are named `key`."""
    _require(isinstance(metadata, dict), "its json is not an object")
    _require(_matches(KEY, key) and metadata.get("key") == key, "its key is not that of its files")
    _require(metadata.get("codec") in CODECS, "its codec is not one of the format")
    _require(_are_labels(metadata.get("labels"), classes), "its labels are not those of classes")
    sides = metadata.get("width"), metadata.get("height")
    _require(all(_is_number(side, 65_535) and side for side in sides), "its size is not valid")
    _require(sides[0] * sides[1] <= MAX_PIXELS, "its size is not valid")
    rate = metadata.get("fps")
    _require(isinstance(rate, str) and len(rate) <= 40, "its frame rate is not valid")
    _require(0 < Fraction(rate) < 1_000_000, "its frame rate is not valid")


def check_table(table: np.ndarray, frames: Any, size: int) -> None:
    """Check the frame table of a sample with so many frames, whose mp4 has `size` bytes."""
    fits = table.dtype == FRAME_DTYPE and table.ndim == 1
    _require(fits and len(table) == frames and len(table) > 0, "its frame table is not valid")
    bad = find_bad_frame(table, size)
    _require(bad is None, f"its frame table points outside of its mp4: {bad}")


def check_fragments(fragments: np.ndarray, size: int) -> None:
    """Check the `idx.npy` of a sample, `[frames, I, E0, E1, ...]`."""
    fits = fragments.dtype == np.dtype("<i4") and fragments.ndim == 1 and len(fragments) > 2
    _require(fits, "its idx.npy is not valid")
    ends = fragments[1:]
    in_order = bool((np.diff(ends) >= 0).all()) and ends[0] >= 0 and ends[-1] <= size
    _require(in_order, "its idx.npy points outside of its mp4")


def load_array(data: bytes) -> np.ndarray:
    """The array of the content of a .npy file; its header may claim no more than there is."""
    file = io.BytesIO(data)
    shape, fortran, dtype = parse_header(file, len(data))
    array = np.frombuffer(data, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise ValueError(fault)


def _matches(pattern: re.Pattern[str], text: Any) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _is_number(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _are_labels(value: Any, classes: int) -> bool:
    return isinstance(value, list) and all(_is_number(label, classes - 1) for label in value)
