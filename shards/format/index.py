"""The memory-mapped index of a split, which opens in milliseconds."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.limits import raise_limit
from shards.errors import ShardError
from shards.format.arrays import BadArray, map_array
from shards.format.checked import is_remembered, remember
from shards.format.files import open_regular
from shards.format.manifest import read_manifest
from shards.format.row_checks import (
    BadRow,
    Bounds,
    find_bad_frame,
    find_bad_key,
    find_bad_label,
    find_bad_sample,
)

SAMPLE_DTYPE = np.dtype(
    [
        ("tar", "<i4"),  # which tar of the manifest
        ("offset", "<i8"),  # first byte of key.mp4's data in the tar
        ("size", "<i8"),  # bytes of the mp4
        ("first_frame", "<i8"),  # first row in frames
        ("num_frames", "<i4"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("fps", "<f4"),
        ("label", "<i4"),  # the first label, -1 for none
        ("first_label", "<i8"),  # first row in labels
        ("num_labels", "<i4"),
        ("first_fragment", "<i8"),  # first row in fragments; -1 for mjpeg
        ("num_fragments", "<i4"),
    ]
)
FRAME_DTYPE = np.dtype([("offset", "<u4"), ("size", "<u4"), ("crc32", "<u4")])
MAX_KEY = 80  # so that `key.frames.npy` fits the 100 bytes of a tar header
KEY_DTYPE = np.dtype(f"S{MAX_KEY}")
LABEL_DTYPE = np.dtype("<i4")
FRAGMENT_DTYPE = np.dtype("<u4")  # ends in bytes from the first byte of the mp4
ARRAYS = {
    "samples": SAMPLE_DTYPE,
    "frames": FRAME_DTYPE,
    "keys": KEY_DTYPE,
    "labels": LABEL_DTYPE,
    "fragments": FRAGMENT_DTYPE,
}
MAX_IDX = 64 << 20  # bytes of an .idx file; a sample has about 200
IDX_MEMBER = rb"[^ ]+ [0-9]{1,18} [0-9]{1,18} [^ ]+"
IDX_LINE = re.compile(IDX_MEMBER + rb"(?: " + IDX_MEMBER + rb")*")


def _is_compatible(dtype: np.dtype, expected: np.dtype) -> bool:
    """Whether an array has the expected type; it may have more fields."""
    if dtype.names is None or expected.names is None:
        return dtype == expected
    return all(name in dtype.names and dtype[name] == expected[name] for name in expected.names)


class Split:
    """A split of a shard set, opened for reading.

    Attributes:
        samples: a row for each sample (SAMPLE_DTYPE), memory-mapped and read-only.
        frames: a row for each frame of all samples (FRAME_DTYPE), likewise.
        fragments: where the GOPs of h264, hevc and vp9 end (FRAGMENT_DTYPE), likewise.
        classes: class names; the index of a name is the label.
        tars: paths of the tars.

    Raises:
        ShardError: for an array that is missing or damaged, or whose rows break a rule of
            `shards.format.row_checks`.
    """

    def __init__(self, root: Path, name: str, manifest: dict[str, Any]) -> None:
        self.root = root
        self.name = name
        self.manifest = manifest
        self.classes: tuple[str, ...] = tuple(manifest["classes"])
        self.codec: str = manifest["settings"]["codec"]
        self.gop: int = 1 if self.codec == "mjpeg" else manifest["settings"]["gop"]
        self.tars = [root / name / tar["name"] for tar in manifest["tars"]]
        self.samples = self._open("samples", manifest["counts"]["samples"])
        self.frames = self._open("frames", manifest["counts"]["frames"])
        self._keys = self._open("keys", manifest["counts"]["samples"])
        self._labels = self._open("labels")
        self.fragments = self._open("fragments")
        self._check_rows()

    def _open(self, name: str, rows: int | None = None) -> np.ndarray:
        path = self.root / self.name / f"{name}.npy"
        try:
            array = map_array(path)
        except FileNotFoundError:
            raise ShardError(f"{path} is missing; {self._remedy}") from None
        except (OSError, BadArray) as error:
            raise_limit(error)  # of memory: the file is mapped
            reason = error.strerror if isinstance(error, OSError) else error
            raise ShardError(f"{path} is damaged ({reason}); {self._remedy}") from None
        if (
            not _is_compatible(array.dtype, ARRAYS[name])
            or array.ndim != 1
            or (rows is not None and len(array) != rows)
        ):
            raise ShardError(f"{path} does not match the manifest; {self._remedy}")
        return array

    @property
    def _remedy(self) -> str:
        return f"run tools/shard.py reindex {self.root / self.name}"

    def _check_rows(self) -> None:
        bounds = Bounds(
            tar_sizes=np.array([tar["size"] for tar in self.manifest["tars"]], np.int64),
            frames=len(self.frames),
            labels=len(self._labels),
            fragments=self.fragments,
            classes=len(self.classes),
            gop=self.gop,
        )
        self._refuse("keys", find_bad_key(self._keys))
        self._refuse("labels", find_bad_label(self._labels, bounds.classes))
        self._refuse("samples", find_bad_sample(self.samples, bounds))
        largest = int(self.samples["size"].max(initial=0))
        path = self.root / self.name / "frames.npy"
        if not is_remembered(path, self.manifest):
            self._refuse("frames", find_bad_frame(self.frames, largest))
            remember(path, self.manifest)

    def _refuse(self, name: str, bad: BadRow | None) -> None:
        """Raise ShardError where an array has a bad row."""
        if bad is not None:
            path = self.root / self.name / f"{name}.npy"
            raise ShardError(f"{path} is damaged: {bad}; {self._remedy}")

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def key(self, i: int) -> str:
        """Return the key of sample i."""
        return bytes(self._keys[i]).decode("ascii", "backslashreplace")

    def labels(self, i: int) -> tuple[int, ...]:
        """Return all labels of sample i."""
        first, count = int(self.samples["first_label"][i]), int(self.samples["num_labels"][i])
        return tuple(int(label) for label in self._labels[first : first + count])

    def tar_path(self, i: int) -> Path:
        """Return the path of the tar that contains sample i."""
        return self.tars[self.samples["tar"][i]]

    def part(self, ids: np.ndarray) -> Split:
        """Return a split of the samples `ids` (N,), renumbered from 0; the tars are all there."""
        part = copy.copy(self)
        part.samples, part._keys = self.samples[ids], self._keys[ids]
        return part

    def __repr__(self) -> str:
        return f"Split({str(self.root)!r}, {self.name!r}, {len(self)} samples, {self.codec})"


def open_split(root: str | Path, name: str) -> Split:
    """Open the split `name` of the shard set in the folder `root`.

    Raises:
        ShardError: if the split or a part of it is missing or damaged.
    """
    root = Path(root)
    return Split(root, name, read_manifest(root / name))


def check_idx_files(split: Split) -> None:
    """Check that every tar has a valid .idx file, which DALI's webdataset reader needs.

    Raises:
        ShardError: for the first one that is missing or damaged.
    """
    folder = split.root / split.name
    for path, entry in zip(split.tars, split.manifest["tars"], strict=True):
        idx = folder / f"{path.stem}.idx"
        try:
            with open_regular(idx) as file:
                valid = _is_valid_idx(file.read(MAX_IDX), entry["size"])
            state = "is damaged"
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            valid, state = False, "is missing" if missing else f"is damaged ({error.strerror})"
        if not valid:
            raise ShardError(f"{idx} {state}; run tools/shard.py reindex {folder}")


def _is_valid_idx(data: bytes, tar_size: int) -> bool:
    """Whether an .idx file is whole, and its members are inside the tar of `tar_size` bytes.

    A first line "v1.2 COUNT", then COUNT lines of "EXTENSION OFFSET SIZE NAME" for each member.
    """
    first, *lines = data.split(b"\n")
    if not lines or lines.pop() or first.split() != [b"v1.2", b"%d" % len(lines)]:
        return False
    if not all(IDX_LINE.fullmatch(line) for line in lines):
        return False
    words = [line.split(b" ") for line in lines]
    return all(
        int(offset) + int(size) <= tar_size
        for line in words
        for offset, size in zip(line[1::4], line[2::4], strict=True)
    )
