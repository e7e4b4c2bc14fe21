"""The memory-mapped index of a split: written from the tars alone, opened in milliseconds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shards.errors import ShardError
from shards.manifest import FORMAT, FORMAT_VERSION, MANIFEST, read_manifest, write_json
from shards.mp4 import FRAME_DTYPE
from shards.plan import MAX_KEY
from shards.tars import RECORD_NAME, Member, members, read_member

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


class Split:
    """One split of a shard set, opened for reading; arrays are memory-mapped and read-only."""

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
        remedy = f"tools/shard.py reindex {path.parent}"
        try:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise ShardError(f"{path} is missing: {remedy}") from None
        except (OSError, ValueError) as error:
            if path.stat().st_size and rows == 0:
                return np.empty(0, ARRAYS[name])
            raise ShardError(f"{path} is damaged ({error}): {remedy}") from None
        if array.dtype != ARRAYS[name] or (rows is not None and len(array) != rows):
            raise ShardError(f"{path} does not fit the manifest: {remedy}")
        return array

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def key(self, i: int) -> str:
        """Key of sample i."""
        return bytes(self._keys[i]).decode("ascii")

    def labels(self, i: int) -> tuple[int, ...]:
        """All labels of sample i."""
        first, count = int(self.samples["first_label"][i]), int(self.samples["num_labels"][i])
        return tuple(int(label) for label in self._labels[first : first + count])

    def tar_path(self, i: int) -> Path:
        """The tar that holds sample i."""
        return self.tars[self.samples["tar"][i]]

    def __repr__(self) -> str:
        return f"Split({str(self.root)!r}, {self.name!r}, {len(self)} samples, {self.codec})"


def open_split(root: str | Path, name: str) -> Split:
    """Open `root`/`name`. Raises ShardError that names what is missing and the remedy."""
    root = Path(root)
    return Split(root, name, read_manifest(root / name))


@dataclass
class Scan:
    """What one tar holds: rows of the index, and the record it carries."""

    record: dict[str, Any]
    samples: list[dict[str, Any]]
    listing: list[list[Member]]


def scan_tar(path: Path) -> Scan:
    """Read the small members and the headers of a tar. Raises ShardError naming the fault."""
    groups: dict[str, list[Member]] = {}
    record: dict[str, Any] = {}
    samples = []
    try:
        with open(path, "rb") as file:
            for member in members(file):
                if member.name == RECORD_NAME:
                    record = json.loads(read_member(file, member))
                else:
                    groups.setdefault(member.key, []).append(member)
            for group in groups.values():
                samples.append(_read_sample(file, group))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ShardError(f"{path} is damaged ({type(error).__name__}: {error})") from None
    if not record:
        raise ShardError(f"{path} carries no record: it is not a tar of a shard set")
    return Scan(record, samples, list(groups.values()))


def _read_sample(file: BinaryIO, group: list[Member]) -> dict[str, Any]:
    parts = {member.extension: member for member in group}
    about: dict[str, Any] = json.loads(read_member(file, parts["json"]))
    about["member"] = parts["mp4"]
    about["table"] = _load_npy(read_member(file, parts["frames.npy"]))
    if "idx.npy" in parts:
        about["fragments"] = _load_npy(read_member(file, parts["idx.npy"]))[1:]
    return about


def _load_npy(data: bytes) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array


class _Column:
    """A .npy file that grows: numpy leaves room in the header for the final length."""

    def __init__(self, folder: Path, name: str) -> None:
        self.dtype = ARRAYS[name]
        self.rows = 0
        self._final = folder / f"{name}.npy"
        self._partial = folder / f".{name}.npy.part"
        self._file = open(self._partial, "wb")  # noqa: SIM115  (closed by close)
        self._header()

    def _header(self) -> None:
        description = np.lib.format.dtype_to_descr(self.dtype)
        shape = {"descr": description, "fortran_order": False, "shape": (self.rows,)}
        np.lib.format.write_array_header_1_0(self._file, shape)

    def append(self, rows: Any) -> None:
        """Add rows."""
        array = np.asarray(rows, self.dtype)
        self._file.write(array.tobytes())
        self.rows += len(array)

    def close(self) -> None:
        """Put the true length into the header, and the file into its place."""
        self._file.seek(0)
        self._header()
        self._file.close()
        self._partial.replace(self._final)


def write_split(
    folder: Path, names: Sequence[str], hashes: dict[str, tuple[str, int]]
) -> dict[str, Any]:
    """Write index, .idx files, sources.jsonl, effective list and manifest from the tars `names`;
    `hashes` gives SHA-256 and size (bytes) of each. Returns the manifest. Raises ShardError.
    """
    try:
        return _write_split(folder, names, hashes)
    except OSError as error:
        raise ShardError(f"cannot write to {folder}: {error.strerror or error}") from None


def _write_split(
    folder: Path, names: Sequence[str], hashes: dict[str, tuple[str, int]]
) -> dict[str, Any]:
    columns = {name: _Column(folder, name) for name in ARRAYS}
    tars, record = [], None
    with ExitStack() as stack:
        stack.callback(lambda: None)
        sources = stack.enter_context(open(folder / ".sources.jsonl.part", "w"))
        for number, name in enumerate(names):
            scan = scan_tar(folder / name)
            record = record or scan.record
            for about in scan.samples:
                _append(columns, number, about)
            for verdict in scan.record["verdicts"]:
                sources.write(json.dumps(verdict | {"tar": name}, sort_keys=True) + "\n")
            _write_idx(folder / f"{name.removesuffix('.tar')}.idx", scan.listing)
            frames = sum(about["frames"] for about in scan.samples)
            sha256, size = hashes[name]
            tars.append(
                {
                    "name": name,
                    "size": size,
                    "sha256": sha256,
                    "samples": len(scan.samples),
                    "frames": frames,
                }
            )
    (folder / ".sources.jsonl.part").replace(folder / "sources.jsonl")
    for column in columns.values():
        column.close()
    assert record is not None
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **{name: record[name] for name in ("split", "classes", "settings", "versions")},
        "counts": {"samples": columns["samples"].rows, "frames": columns["frames"].rows},
        "tars": tars,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def _append(columns: dict[str, _Column], tar: int, about: dict[str, Any]) -> None:
    labels, table = about["labels"], about["table"]
    fragments = about.get("fragments")
    row = (
        tar,
        about["member"].offset,
        about["member"].size,
        columns["frames"].rows,
        len(table),
        about["width"],
        about["height"],
        float(Fraction(about["fps"])),
        labels[0] if labels else -1,
        columns["labels"].rows,
        len(labels),
        -1 if fragments is None else columns["fragments"].rows,
        0 if fragments is None else len(fragments) - 1,
    )
    columns["samples"].append([row])
    columns["frames"].append(table)
    columns["keys"].append([about["key"].encode("ascii")])
    columns["labels"].append(labels)
    if fragments is not None:
        columns["fragments"].append(fragments)


def _write_idx(path: Path, listing: list[list[Member]]) -> None:
    """The index format of DALI's wds2idx, version 1.2."""
    lines = [f"v1.2 {len(listing)}"]
    for group in listing:
        lines.append(" ".join(f"{m.extension} {m.offset} {m.size} {m.name}" for m in group))
    path.write_text("\n".join(lines) + "\n")


def iterate_verdicts(folder: Path) -> Iterator[dict[str, Any]]:
    """Every source's verdict of a finished split."""
    with open(folder / "sources.jsonl") as file:
        for line in file:
            yield json.loads(line)
