"""Writes the side files of a split from its tars alone: index, lists and manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dsanet.errors import printable
from dsanet.limits import find_limit, raise_limit
from shards.errors import ShardError
from shards.format.files import create, open_regular
from shards.format.frame_table import as_rows
from shards.format.index import ARRAYS, MAX_KEY
from shards.format.manifest import FORMAT, FORMAT_VERSION, MANIFEST, write_json, write_text
from shards.format.settings import STATUSES
from shards.format.tar_schema import (
    check_fragments,
    check_metadata,
    check_record,
    check_table,
    load_array,
)
from shards.format.tars import RECORD_NAME, Member, iter_members, read_member


@dataclass
class TarContents:
    """The record of a tar, and for each sample its metadata and its members.

    The metadata is the sample's JSON object with three more keys: "member" (the mp4), "table" (of
    frames) and, for h264, hevc and vp9, "fragments" (ends of the GOPs).
    """

    record: dict[str, Any]
    samples: list[dict[str, Any]]
    groups: list[list[Member]]


def scan_tar(path: Path) -> TarContents:
    """Read the headers and the small members of a tar. Raises ShardError if it is damaged."""
    groups: dict[str, list[Member]] = {}
    record: dict[str, Any] = {}
    location = "its headers"
    try:
        with open_regular(path) as file:
            for member in iter_members(file):
                if member.name == RECORD_NAME:
                    record = json.loads(read_member(file, member))
                else:
                    groups.setdefault(member.key, []).append(member)
            if record:
                location = "its record"
                _check_version(path, record)
                check_record(record)
            samples = []
            for key, group in groups.items() if record else ():
                location = f"sample {printable(key, MAX_KEY)}"
                samples.append(_read_sample(file, group, len(record["classes"])))
    except FileNotFoundError:
        raise ShardError(f"{path} is missing") from None
    except ShardError:
        raise
    except Exception as error:
        raise_limit(error)
        text = printable(f"{type(error).__name__}: {error}", 200)
        raise ShardError(
            f"{path} is damaged in {location} ({text}); delete it and run the same command"
        ) from None
    if not record:
        raise ShardError(f"{path} has no record: it is cut off, or not a tar of a shard set")
    return TarContents(record, samples, list(groups.values()))


def _check_version(path: Path, record: Mapping[str, Any]) -> None:
    """Raise ShardError for a tar of a version that is not known."""
    version = record.get("format")
    if type(version) is int and 1 <= version <= FORMAT_VERSION:
        return
    raise ShardError(
        f"{path} has format version {printable(str(version), 20)}, but this version of the project "
        f"reads 1 to {FORMAT_VERSION}; update the project, or rebuild the set with tools/shard.py"
    )


def _read_sample(file: BinaryIO, group: Sequence[Member], classes: int) -> dict[str, Any]:
    parts = {member.extension: member for member in group}
    video = parts["mp4"]
    metadata: dict[str, Any] = json.loads(read_member(file, parts["json"]))
    check_metadata(metadata, video.key, classes)
    metadata["member"] = video
    metadata["table"] = as_rows(load_array(read_member(file, parts["frames.npy"])))
    check_table(metadata["table"], metadata.get("frames"), video.size)
    if "idx.npy" in parts:
        fragments = load_array(read_member(file, parts["idx.npy"]))
        check_fragments(fragments, video.size)
        metadata["fragments"] = fragments[1:]
    return metadata


class _GrowingArray:
    """A .npy file that rows are appended to; NumPy's header has room for the final length."""

    def __init__(self, folder: Path, name: str) -> None:
        self.dtype = ARRAYS[name]
        self.rows = 0
        self._final = folder / f"{name}.npy"
        self._partial = folder / f".{name}.npy.part"
        self._file = create(self._partial)
        self._write_header()

    def _write_header(self) -> None:
        description = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self.rows,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: Any) -> None:
        """Append rows."""
        array = np.asarray(rows, self.dtype)
        self._file.write(array.tobytes())
        self.rows += len(array)

    def close(self) -> None:
        """Write the length into the header and give the file its final name."""
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._final)


class IndexWriter:
    """Writes the arrays of the index, sample by sample."""

    def __init__(self, folder: Path) -> None:
        self._arrays = {name: _GrowingArray(folder, name) for name in ARRAYS}

    def rows(self, name: str) -> int:
        """Return the number of rows of an array so far."""
        return self._arrays[name].rows

    def append(self, tar: int, metadata: Mapping[str, Any]) -> None:
        """Append a sample of the tar with number `tar`."""
        labels, table, fragments = metadata["labels"], metadata["table"], metadata.get("fragments")
        row = (
            tar,
            metadata["member"].offset,
            metadata["member"].size,
            self.rows("frames"),
            len(table),
            metadata["width"],
            metadata["height"],
            float(Fraction(metadata["fps"])),
            labels[0] if labels else -1,
            self.rows("labels"),
            len(labels),
            -1 if fragments is None else self.rows("fragments"),
            0 if fragments is None else len(fragments) - 1,
        )
        self._arrays["samples"].append([row])
        self._arrays["frames"].append(table)
        self._arrays["keys"].append([metadata["key"].encode("ascii")])
        self._arrays["labels"].append(labels)
        if fragments is not None:
            self._arrays["fragments"].append(fragments)

    def close(self) -> None:
        """Finish all files and give them their final names."""
        for array in self._arrays.values():
            array.close()


def idx_text(groups: Sequence[Sequence[Member]]) -> str:
    """Return the index of a tar in the format of DALI's wds2idx, version 1.2."""
    lines = [f"v1.2 {len(groups)}"]
    for group in groups:
        lines.append(" ".join(f"{m.extension} {m.offset} {m.size} {m.name}" for m in group))
    return "\n".join(lines) + "\n"


def class_counts_csv(verdicts: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """Return a CSV with the number of videos of each class, listed and by status."""
    counts: dict[int, Counter[str]] = {}
    for verdict in verdicts:
        for label in verdict["labels"] or [-1]:
            counts.setdefault(label, Counter())[verdict["status"]] += 1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "class", "listed", "found", "missing", "broken", "deferred"])
    for label in sorted(counts.keys() | set(range(len(classes)))):
        count = counts.get(label, Counter())
        name = classes[label] if label >= 0 else "(unlabelled)"
        writer.writerow([label, name, count.total(), *(count[s] for s in STATUSES)])
    return text.getvalue()


def effective_list_csv(verdicts: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """Return a CSV of the samples that are in the split, sorted by key."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "labels", "classes", "frames"])
    for verdict in sorted(verdicts, key=lambda v: str(v["key"])):
        if verdict["status"] == "ok":
            names = [classes[label] for label in verdict["labels"]]
            labels = " ".join(map(str, verdict["labels"]))
            writer.writerow([verdict["key"], labels, "; ".join(names), verdict["frames"]])
    return text.getvalue()


def write_split(
    folder: Path, names: Sequence[str], hashes: Mapping[str, tuple[str, int]]
) -> dict[str, Any]:
    """Write every side file of a split, and return its manifest.

    names: the tars of `folder`, in order.
    hashes: SHA-256 and size (bytes) of each.

    Raises:
        ShardError: if a tar is damaged or a file cannot be written.
    """
    tars: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    record: dict[str, Any] = {}
    version = 1
    try:
        index = IndexWriter(folder)
        for number, name in enumerate(names):
            contents = scan_tar(folder / name)
            record = record or contents.record
            version = max(version, contents.record["format"])
            for metadata in contents.samples:
                index.append(number, metadata)
            verdicts += [verdict | {"tar": name} for verdict in contents.record["verdicts"]]
            write_text(folder / f"{name.removesuffix('.tar')}.idx", idx_text(contents.groups))
            tars.append(_tar_entry(name, contents, *hashes[name]))
        index.close()
    except OSError as error:
        error.filename = error.filename or str(folder / MANIFEST)
        reason = find_limit(error) or f"cannot write to {folder}: {error.strerror or error}"
        raise ShardError(reason) from None
    effective = effective_list_csv(verdicts, record["classes"])
    _write_lists(folder, verdicts, record["classes"], effective)
    counts = Counter(verdict["status"] for verdict in verdicts)
    manifest = {
        "format": FORMAT,
        "version": version,
        **{name: record[name] for name in ("split", "classes", "settings", "versions")},
        "counts": {
            "samples": index.rows("samples"),
            "frames": index.rows("frames"),
            "sources": {status: counts[status] for status in STATUSES},
        },
        "effective_sha256": hashlib.sha256(effective.encode()).hexdigest(),
        "tars": tars,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def _write_lists(
    folder: Path, verdicts: Sequence[Mapping[str, Any]], classes: Sequence[str], effective: str
) -> None:
    lines = (json.dumps(verdict, sort_keys=True) + "\n" for verdict in verdicts)
    write_text(folder / "sources.jsonl", "".join(lines))
    write_text(folder / "classes.csv", class_counts_csv(verdicts, classes))
    write_text(folder / "effective.csv", effective)


def _tar_entry(name: str, contents: TarContents, sha256: str, size: int) -> dict[str, Any]:
    frames = sum(metadata["frames"] for metadata in contents.samples)
    counts = {"samples": len(contents.samples), "frames": frames}
    return {"name": name, "size": size, "sha256": sha256, **counts}
