"""Plain lists: "relative/path.mp4 label" lines, and CSV with the columns path and label."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from shards.errors import ShardError
from shards.plan import unique_keys
from shards.settings import Source


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty. Raises ShardError if it cannot be read."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise ShardError(f"cannot read the list {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ShardError(f"the list {path} is not UTF-8 text") from None
    return [line.strip() for line in lines if line.strip()]


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names, one a line; the line order is the label. Raises ShardError for doubles."""
    names = tuple(read_lines(path))
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ShardError(f"{path} names a class twice: {', '.join(sorted(doubled))}")
    if not names:
        raise ShardError(f"{path} names no class")
    return names


def to_label(text: str, classes: Sequence[str], where: str) -> int:
    """A label written as an index or as a class name. Raises ShardError that names the place."""
    if text in classes:
        return list(classes).index(text)
    if text.lstrip("-").isdigit():
        return int(text)
    known = "no --classes file was given" if not classes else "it is not among the classes"
    raise ShardError(f"{where}: label {text!r} is no number, and {known}")


def read_folder(
    videos: Path, path: Path, classes: Sequence[str] = ()
) -> tuple[list[Source], tuple[str, ...]]:
    """Sources of "relative/path.mp4 label" lines; the label is an index, or a name of `classes`.

    Returns the sources and the class names (their numbers, where no names are given).
    """
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        name, _, label = line.rpartition(" ")
        where = f"{path}, line {number}"
        if not name:
            raise ShardError(f"{where}: {line!r} is not 'relative/path.mp4 label'")
        pairs.append((name.strip(), to_label(label, classes, where)))
    return to_sources(videos, pairs, classes, path)


def read_csv(
    videos: Path, path: Path, classes: Sequence[str] = ()
) -> tuple[list[Source], tuple[str, ...]]:
    """Sources of a CSV file with a header that names the columns path and label."""
    rows = list(csv.DictReader(read_lines(path)))
    if rows and not {"path", "label"} <= set(rows[0]):
        raise ShardError(f"{path}: the header must name the columns path and label")
    pairs = [
        (row["path"] or "", to_label(row["label"] or "", classes, f"{path}, line {number}"))
        for number, row in enumerate(rows, 2)
    ]
    return to_sources(videos, pairs, classes, path)


def to_sources(
    videos: Path, pairs: Sequence[tuple[str, int]], classes: Sequence[str], path: Path
) -> tuple[list[Source], tuple[str, ...]]:
    """Sources under `videos` for (relative path, label) pairs, with clean keys."""
    names = [name for name, _ in pairs]
    doubled = (
        {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    )
    if doubled:
        raise ShardError(f"{path} names {sorted(doubled)[0]} twice")
    if not classes and pairs:
        classes = [str(label) for label in range(max(label for _, label in pairs) + 1)]
    keys = unique_keys(names)
    sources = [
        Source(videos / name, label, key, name=name)
        for (name, label), key in zip(pairs, keys, strict=True)
    ]
    return sources, tuple(classes)
