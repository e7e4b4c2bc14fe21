"""Reads the lists of Something-Something V1, which has a folder of JPEG frames for each video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shards.annotations.plain import Listing, read_lines, to_label
from shards.errors import ShardError
from shards.format.settings import Source

RATE = "12"  # frames per second


def read_something(videos: Path, path: Path, classes: Sequence[str] = ()) -> Listing:
    """Read `id;label` lines; the frames of a video are in the folder `videos`/<id>.

    classes: the lines of the data set's labels file; without them, the labels of the list in
        alphabetical order.

    Raises:
        ShardError: for the first wrong line.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        name, _, label = (part.strip() for part in line.partition(";"))
        if not name:
            raise ShardError(f"{path}, line {number}: {line!r} is not 'id;label'")
        pairs.append((name, label, f"{path}, line {number}"))
    names = tuple(classes) or tuple(sorted({label for _, label, _ in pairs if label}))
    numbers = {label: number for number, label in enumerate(names)}
    sources = [
        Source(
            videos / name,
            to_label(label, numbers, where) if label else -1,
            name,
            name=name,
            fps=RATE,
        )
        for name, label, where in pairs
    ]
    return Listing(sources, names)
