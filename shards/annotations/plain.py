"""Reads lists of "relative/path.mp4 label" lines, and CSV files with columns path and label."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.build.plan import unique_keys
from shards.errors import ShardError
from shards.format.files import read_regular
from shards.format.settings import Source

MAX_LIST = 1 << 30  # bytes


@dataclass(frozen=True)
class Listing:
    """The sources of a list, and the class names in the order of their labels."""

    sources: list[Source]
    classes: tuple[str, ...]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list that are not empty. Raises ShardError if it cannot be read."""
    try:
        lines = read_regular(path, MAX_LIST).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ShardError(f"cannot read the list {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ShardError(f"the list {path} is not UTF-8 text") from None
    return [line.strip() for line in lines if line.strip()]


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file. Raises ShardError if its header lacks one of `columns`."""
    try:
        rows = list(csv.DictReader(read_lines(path), restval=""))
    except csv.Error as error:
        raise ShardError(f"the list {path} is not CSV: {error}") from None
    if not rows:
        raise ShardError(f"the list {path} has no line after its header")
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise ShardError(
            f"{path}: the header has no column {missing[0]}; the first line must have "
            + ",".join(columns)
        )
    return rows


def read_classes(path: Path) -> tuple[str, ...]:
    """Read class names, one per line in the order of their labels.

    Raises ShardError for an empty file or a name that appears twice.
    """
    names = tuple(read_lines(path))
    if not names:
        raise ShardError(f"{path} contains no class name")
    if duplicate := _first_duplicate(names):
        raise ShardError(f"{path} contains the class {duplicate!r} twice")
    return names


def _first_duplicate(names: Sequence[str]) -> str:
    counts = Counter(names)
    return next((name for name in names if counts[name] > 1), "")


def to_label(text: str, numbers: Mapping[str, int], where: str) -> int:
    """Return the label that `text` means: a class name of `numbers`, or a number.

    where: file and line, for the message of the ShardError if it is neither.
    """
    if text in numbers:
        return numbers[text]
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    reason = "not one of the classes" if numbers else "not a number; to use names, give --classes"
    raise ShardError(f"{where}: the label {text!r} is {reason}")


def _numbers(classes: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(classes)}


def read_folder(videos: Path, path: Path, classes: Sequence[str] = ()) -> Listing:
    """Read "relative/path.mp4 label" lines; a label is a number, or a name of `classes`.

    Without `classes` the class names are the numbers. A class name may contain spaces.

    Raises:
        ShardError: for the first wrong line.
    """
    numbers, pairs = _numbers(classes), []
    for count, line in enumerate(read_lines(path), 1):
        where = f"{path}, line {count}"
        name, label = _split_line(line, numbers)
        if not name:
            raise ShardError(f"{where}: {line!r} is not 'relative/path.mp4 label'")
        pairs.append((name, to_label(label, numbers, where)))
    return Listing(to_sources(videos, pairs, path), _names(classes, pairs))


def _split_line(line: str, numbers: Mapping[str, int]) -> tuple[str, str]:
    """Return (path, label); the label is the longest class name that ends the line, or a word."""
    words = line.split(" ")
    for first in range(1, len(words)):
        if (label := " ".join(words[first:])) in numbers:
            return " ".join(words[:first]).strip(), label
    name, _, label = line.rpartition(" ")
    return name.strip(), label


def read_csv(videos: Path, path: Path, classes: Sequence[str] = ()) -> Listing:
    """Read a CSV file with the columns path and label, and perhaps start and end (seconds).

    start and end cut a segment out of a longer video.

    Raises:
        ShardError: for the first wrong line.
    """
    rows, numbers = read_table(path, ("path", "label")), _numbers(classes)
    pairs = [
        (row["path"], to_label(row["label"].strip(), numbers, f"{path}, line {count}"))
        for count, row in enumerate(rows, 2)
    ]
    segments = [_read_segment(row, f"{path}, line {count}") for count, row in enumerate(rows, 2)]
    sources = [
        replace(source, start=segment[0], end=segment[1]) if segment else source
        for source, segment in zip(to_sources(videos, pairs, path, segments), segments, strict=True)
    ]
    return Listing(sources, _names(classes, pairs))


def _read_segment(row: Mapping[str, str], where: str) -> tuple[float, float] | None:
    start, end = row.get("start", ""), row.get("end", "")
    if not start and not end:
        return None
    try:
        segment = float(start or 0), float(end)
    except ValueError:
        raise ShardError(f"{where}: start and end must be numbers of seconds") from None
    if not 0 <= segment[0] < segment[1]:
        raise ShardError(
            f"{where}: the segment from {start} to {end} has no length or begins before 0"
        )
    return segment


def _names(classes: Sequence[str], pairs: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(classes) or tuple(str(n) for n in range(max((b for _, b in pairs), default=0) + 1))


def to_sources(
    videos: Path,
    pairs: Sequence[tuple[str, int]],
    path: Path,
    segments: Sequence[tuple[float, float] | None] = (),
) -> list[Source]:
    """Return sources in the folder `videos` for (relative path, label) pairs.

    segments: one for each pair, which becomes a part of the key.

    Raises ShardError if a path appears twice without different segments.
    """
    names = [name for name, _ in pairs]
    if any(segments):
        names = [
            f"{Path(name).with_suffix('')}_{1000 * segment[0]:.0f}_{1000 * segment[1]:.0f}"
            if segment
            else name
            for name, segment in zip(names, segments, strict=True)
        ]
    if duplicate := _first_duplicate(names):
        raise ShardError(f"{path} contains {duplicate} twice")
    keys = unique_keys(names)
    return [
        Source(videos / name, label, key, name=name)
        for (name, label), key in zip(pairs, keys, strict=True)
    ]
