"""Everything beside the tars is made here, from the tars alone: index, lists and manifest."""

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

from shards.errors import ShardError
from shards.format.index import ARRAYS
from shards.format.manifest import FORMAT, FORMAT_VERSION, MANIFEST, write_json, write_text
from shards.format.tars import RECORD_NAME, Member, members, read_member

STATUSES = ("ok", "missing", "refused", "deferred")


@dataclass
class Scan:
    """What one tar holds: descriptions of its samples, and the record it carries."""

    record: dict[str, Any]
    samples: list[dict[str, Any]]
    listing: list[list[Member]]


def scan_tar(path: Path) -> Scan:
    """Read the headers and the small members of a tar. Raises ShardError naming the fault."""
    groups: dict[str, list[Member]] = {}
    record: dict[str, Any] = {}
    at = "its headers"
    try:
        with open(path, "rb") as file:
            for member in members(file):
                if member.name == RECORD_NAME:
                    record = json.loads(read_member(file, member))
                else:
                    groups.setdefault(member.key, []).append(member)
            samples = []
            for key, group in groups.items():
                at = f"sample {key}"
                samples.append(_read_sample(file, group))
    except FileNotFoundError:
        raise ShardError(f"{path} is missing") from None
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise ShardError(
            f"{path} is damaged in {at} ({text}): delete it and run the same command"
        ) from None
    if not record:
        raise ShardError(f"{path} ends without its record: cut off, or no tar of a shard set")
    return Scan(record, samples, list(groups.values()))


def _read_sample(file: BinaryIO, group: Sequence[Member]) -> dict[str, Any]:
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
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._final)


class Columns:
    """The arrays of the index, growing sample by sample."""

    def __init__(self, folder: Path) -> None:
        self.columns = {name: _Column(folder, name) for name in ARRAYS}

    def rows(self, name: str) -> int:
        """Rows of one array so far."""
        return self.columns[name].rows

    def append(self, tar: int, about: Mapping[str, Any]) -> None:
        """Add a sample of the tar with number `tar`."""
        labels, table, fragments = about["labels"], about["table"], about.get("fragments")
        row = (
            tar,
            about["member"].offset,
            about["member"].size,
            self.rows("frames"),
            len(table),
            about["width"],
            about["height"],
            float(Fraction(about["fps"])),
            labels[0] if labels else -1,
            self.rows("labels"),
            len(labels),
            -1 if fragments is None else self.rows("fragments"),
            0 if fragments is None else len(fragments) - 1,
        )
        self.columns["samples"].append([row])
        self.columns["frames"].append(table)
        self.columns["keys"].append([about["key"].encode("ascii")])
        self.columns["labels"].append(labels)
        if fragments is not None:
            self.columns["fragments"].append(fragments)

    def close(self) -> None:
        """Put all files into their places."""
        for column in self.columns.values():
            column.close()


def idx_text(listing: Sequence[Sequence[Member]]) -> str:
    """The index of a tar in the format of DALI's wds2idx, version 1.2."""
    lines = [f"v1.2 {len(listing)}"]
    for group in listing:
        lines.append(" ".join(f"{m.extension} {m.offset} {m.size} {m.name}" for m in group))
    return "\n".join(lines) + "\n"


def class_counts(verdicts: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """CSV: for each class, how many videos the list names, and how many came to what."""
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


def effective_list(verdicts: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """CSV of the samples that are in the set, by key: what two people compare."""
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
    """Write every side file of `folder` from its tars `names`; `hashes` gives the SHA-256 and the
    size (bytes) of each. Returns the manifest. Raises ShardError.
    """
    tars: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    record: dict[str, Any] = {}
    try:
        columns = Columns(folder)
        for number, name in enumerate(names):
            scan = scan_tar(folder / name)
            record = record or scan.record
            for about in scan.samples:
                columns.append(number, about)
            verdicts += [verdict | {"tar": name} for verdict in scan.record["verdicts"]]
            write_text(folder / f"{name.removesuffix('.tar')}.idx", idx_text(scan.listing))
            tars.append(_tar_entry(name, scan, hashes[name]))
        columns.close()
    except OSError as error:
        raise ShardError(f"cannot write to {folder}: {error.strerror or error}") from None
    lines = (json.dumps(verdict, sort_keys=True) + "\n" for verdict in verdicts)
    write_text(folder / "sources.jsonl", "".join(lines))
    write_text(folder / "classes.csv", class_counts(verdicts, record["classes"]))
    effective = effective_list(verdicts, record["classes"])
    write_text(folder / "effective.csv", effective)
    counts = Counter(verdict["status"] for verdict in verdicts)
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **{name: record[name] for name in ("split", "classes", "settings", "versions")},
        "counts": {
            "samples": columns.rows("samples"),
            "frames": columns.rows("frames"),
            "sources": {status: counts[status] for status in STATUSES},
        },
        "effective_sha256": hashlib.sha256(effective.encode()).hexdigest(),
        "tars": tars,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def _tar_entry(name: str, scan: Scan, known: tuple[str, int]) -> dict[str, Any]:
    frames = sum(about["frames"] for about in scan.samples)
    sha256, size = known
    counts = {"samples": len(scan.samples), "frames": frames}
    return {"name": name, "size": size, "sha256": sha256, **counts}
