"""Reads the CSV lists of Kinetics-400 and Mini-Kinetics-200."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shards.annotations.files import VideoFolder, normalise_class_name
from shards.annotations.plain import Listing, read_table, to_label
from shards.build.plan import unique_keys
from shards.errors import ShardError
from shards.format.settings import Source

COLUMNS = ("youtube_id", "time_start", "time_end")
MINI_CLASSES = 200


def _read_rows(path: Path) -> list[dict[str, str]]:
    rows = read_table(path, COLUMNS)
    for number, row in enumerate(rows, 2):
        try:
            float(row["time_start"]), float(row["time_end"])
        except ValueError:
            raise ShardError(
                f"{path}, line {number}: time_start and time_end must be numbers of seconds"
            ) from None
        row["label"] = normalise_class_name((row.get("label") or "").strip("\"'"))
    return rows


def _to_source(folder: VideoFolder, row: dict[str, str], label: int, key: str) -> Source:
    """Return the trimmed clip if it exists, else the whole video, to be cut if it is longer."""
    start, end = float(row["time_start"]), float(row["time_end"])
    clip = f"{row['youtube_id']}_{int(start):06d}_{int(end):06d}"
    path = folder.find(clip, row["label"])
    if path:
        return Source(path, label, key, name=folder.relative_name(path))
    path = folder.find(row["youtube_id"], row["label"])
    if path:
        source = Source(path, label, key, name=folder.relative_name(path))
        return replace(source, start=start, end=end, if_longer=True)
    return Source(folder.root / row["label"] / f"{clip}.mp4", label, key, name=clip)


def _to_listing(
    videos: Path, rows: list[dict[str, str]], classes: Sequence[str], path: Path
) -> Listing:
    folder = VideoFolder(videos)
    numbers = {normalise_class_name(name): number for number, name in enumerate(classes)}
    clips = [f"{r['youtube_id']}_{int(float(r['time_start'])):06d}" for r in rows]
    labels = [
        to_label(row["label"], numbers, f"{path}, video {row['youtube_id']}")
        if row["label"]
        else -1
        for row in rows
    ]
    keys = unique_keys(clips)
    sources = [
        _to_source(folder, row, label, key)
        for row, label, key in zip(rows, labels, keys, strict=True)
    ]
    return Listing(sources, tuple(classes))


def read_kinetics(videos: Path, path: Path, classes: Sequence[str] = ()) -> Listing:
    """Read a list of Kinetics-400; without `classes` they are its labels in alphabetical order.

    The name of a file is `<id>_<start6>_<end6>` or `<id>` with any video suffix, in any folder.

    Raises:
        ShardError: if the list does not have the columns of Kinetics, or an unknown class.
    """
    rows = _read_rows(path)
    names = classes or sorted({row["label"] for row in rows if row["label"]})
    return _to_listing(videos, rows, names, path)


def most_frequent_classes(labels: Sequence[str], count: int = MINI_CLASSES) -> tuple[str, ...]:
    """Return the `count` labels with the most videos (ties by name), in alphabetical order."""
    ranked = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    return tuple(sorted(name for name, _ in ranked[:count]))


def read_mini_kinetics(videos: Path, path: Path, classes: Sequence[str] = ()) -> Listing:
    """Read the rows of a Kinetics-400 list that belong to the 200 classes of Mini-Kinetics.

    Without `classes` they are the 200 with the most videos in the list, which must then be the
    training list.

    Raises:
        ShardError: if `classes` are needed, or as `read_kinetics` does.
    """
    rows = _read_rows(path)
    if not classes:
        splits = {row.get("split", "train") for row in rows}
        if splits - {"train"}:
            raise ShardError(
                f"{path} is not a training list, which the 200 classes follow from: shard the "
                "training split into the same --out first, or give --classes"
            )
        classes = most_frequent_classes([row["label"] for row in rows])
    wanted = {normalise_class_name(name) for name in classes}
    return _to_listing(videos, [row for row in rows if row["label"] in wanted], classes, path)
