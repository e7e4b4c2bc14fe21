"""The memory-mapped index of a split, which opens in milliseconds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import ShardError
from shards.format.manifest import read_manifest

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

    def _open(self, name: str, rows: int | None = None) -> np.ndarray:
        path = self.root / self.name / f"{name}.npy"
        remedy = f"run tools/shard.py reindex {path.parent}"
        try:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise ShardError(f"{path} is missing; {remedy}") from None
        except (OSError, ValueError, EOFError) as error:
            raise ShardError(f"{path} is damaged ({error}); {remedy}") from None
        if not _is_compatible(array.dtype, ARRAYS[name]) or (
            rows is not None and len(array) != rows
        ):
            raise ShardError(f"{path} does not match the manifest; {remedy}")
        # Still mapped, but without np.memmap, which makes every look-up slow.
        return array.view(np.ndarray)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def key(self, i: int) -> str:
        """Return the key of sample i."""
        return bytes(self._keys[i]).decode("ascii")

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
    """Check that every tar has a complete .idx file, which DALI's webdataset reader needs.

    Raises:
        ShardError: for the first one that is missing or damaged.
    """
    folder = split.root / split.name
    for tar in split.tars:
        path = folder / f"{tar.stem}.idx"
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        # A first line "v1.2 COUNT", then COUNT lines, each with a line end.
        if len(lines) < 2 or lines[-1] or lines[0].split()[-1:] != [b"%d" % (len(lines) - 2)]:
            state = "is damaged" if path.is_file() else "is missing"
            raise ShardError(f"{path} {state}; run tools/shard.py reindex {folder}")
