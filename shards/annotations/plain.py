"""Plain lists: "relative/path.mp4 label" lines, and CSV with the columns path and label."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.build.plan import unique_keys
from shards.errors import ShardError
from shards.format.settings import Source


@dataclass(frozen=True)
class Listing:
    """What a list asks for: the sources, and the class names in the order of their labels."""

    sources: list[Source]
    classes: tuple[str, ...]


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty. Raises ShardError if it cannot be read."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise ShardError(f"cannot read the list {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ShardError(f"the list {path} is not UTF-8 text") from None
    return [line.strip() for line in lines if line.strip()]


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file whose header names `columns`. Raises ShardError."""
    try:
        rows = list(csv.DictReader(read_lines(path), restval=""))
    except csv.Error as error:
        raise ShardError(f"the list {path} is not CSV: {error}") from None
    if not rows:
        raise ShardError(f"the list {path} has no line under its header")
    lacking = [column for column in columns if column not in rows[0]]
    if lacking:
        raise ShardError(
            f"{path}: the header does not name the column {lacking[0]}: let the first line be "
            + ",".join(columns)
        )
    return rows


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names, one a line; the line order is the label. Raises ShardError for doubles."""
    names = tuple(read_lines(path))
    if not names:
        raise ShardError(f"{path} names no class")
    if doubled := _first_doubled(names):
        raise ShardError(f"{path} names the class {doubled!r} twice")
    return names


def _first_doubled(names: Sequence[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def to_label(text: str, numbers: Mapping[str, int], where: str) -> int:
    """A label written as a class name or as a number. Raises ShardError that names the place."""
    if text in numbers:
        return numbers[text]
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    known = "not among the classes" if numbers else "no number, and there is no --classes file"
    raise ShardError(f"{where}: the label {text!r} is {known}")


def _numbers(classes: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(classes)}


def read_folder(videos: Path, path: Path, classes: Sequence[str] = ()) -> Listing:
    """Sources of "relative/path.mp4 label" lines; the label is an index, or a name of `classes`.

    Without `classes` the labels are numbers and the class names are these numbers. A class name
    may have spaces. Raises ShardError naming the line that is wrong.
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
    """(path, label): the longest class name at the end of the line, else its last word."""
    words = line.split(" ")
    for first in range(1, len(words)):
        if (label := " ".join(words[first:])) in numbers:
            return " ".join(words[:first]).strip(), label
    name, _, label = line.rpartition(" ")
    return name.strip(), label


def read_csv(videos: Path, path: Path, classes: Sequence[str] = ()) -> Listing:
    """Sources of a CSV file with a header that names path and label, and perhaps start and end
    (seconds), which cut segments out of longer videos."""
    rows, numbers = read_table(path, ("path", "label")), _numbers(classes)
    pairs = [
        (row["path"], to_label(row["label"].strip(), numbers, f"{path}, line {count}"))
        for count, row in enumerate(rows, 2)
    ]
    cuts = [_cut(row, f"{path}, line {count}") for count, row in enumerate(rows, 2)]
    sources = [
        replace(source, start=cut[0], end=cut[1]) if cut else source
        for source, cut in zip(to_sources(videos, pairs, path, cuts), cuts, strict=True)
    ]
    return Listing(sources, _names(classes, pairs))


def _cut(row: Mapping[str, str], where: str) -> tuple[float, float] | None:
    start, end = row.get("start", ""), row.get("end", "")
    if not start and not end:
        return None
    try:
        cut = float(start or 0), float(end)
    except ValueError:
        raise ShardError(f"{where}: start and end are seconds") from None
    if not 0 <= cut[0] < cut[1]:
        raise ShardError(f"{where}: the segment {start} to {end} has no length")
    return cut


def _names(classes: Sequence[str], pairs: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(classes) or tuple(str(n) for n in range(max((b for _, b in pairs), default=0) + 1))


def to_sources(
    videos: Path,
    pairs: Sequence[tuple[str, int]],
    path: Path,
    cuts: Sequence[tuple[float, float] | None] = (),
) -> list[Source]:
    """Sources under `videos` for (relative path, label) pairs, with clean keys; `cuts` tell apart
    several segments of one file. Raises ShardError for a doubled line."""
    names = [name for name, _ in pairs]
    if any(cuts):
        names = [
            f"{Path(name).with_suffix('')}_{1000 * cut[0]:.0f}_{1000 * cut[1]:.0f}" if cut else name
            for name, cut in zip(names, cuts, strict=True)
        ]
    if doubled := _first_doubled(names):
        raise ShardError(f"{path} names {doubled} twice")
    keys = unique_keys(names)
    return [
        Source(videos / name, label, key, name=name)
        for (name, label), key in zip(pairs, keys, strict=True)
    ]
