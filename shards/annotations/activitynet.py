"""Reads the list of ActivityNet v1.3: a JSON file of untrimmed videos with labelled segments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dsanet.errors import require
from shards.annotations.files import VideoFolder
from shards.annotations.plain import MAX_LIST, Listing
from shards.build.plan import clean_key
from shards.errors import ShardError, ShardUsageError
from shards.format.files import read_regular
from shards.format.settings import Source

SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
Segment = tuple[float, float, str]


def _read_database(path: Path) -> dict[str, dict[str, Any]]:
    try:
        database = json.loads(read_regular(path, MAX_LIST))["database"]
    except OSError as error:
        raise ShardError(f"cannot read the list {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ShardError(
            f"{path} is not the JSON file of ActivityNet: it has no 'database'"
        ) from None
    if not isinstance(database, dict):
        raise ShardError(f"{path}: 'database' is not an object with an entry for each video")
    for name, entry in database.items():
        try:
            _segments(entry)
            _duration(entry)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"
            raise ShardError(f"{path}, video {name}: the entry is damaged ({text})") from None
    return database


def _duration(entry: dict[str, Any]) -> float:
    return float(entry.get("duration") or 0)


def _segments(entry: dict[str, Any]) -> list[Segment]:
    """Return the labelled segments (start, end, label) that are not empty, in order of time."""
    segments = []
    for annotation in entry.get("annotations") or ():
        start, end = map(float, annotation["segment"])
        if end > start:
            segments.append((start, end, str(annotation["label"])))
    return sorted(segments)


def _parts(mode: str, duration: float, segments: list[Segment]) -> Iterator[tuple[Any, Any, list]]:
    """Yield (start, end, labelled segments in it) of each sample of a video."""
    if mode == "whole":
        yield None, None, segments
    elif mode == "labelled":
        for start, end, label in segments:
            yield start, end, [(start, end, label)]
    else:
        length, start = float(mode), 0.0
        while start < duration:
            end = min(start + length, duration)
            inside = [s for s in segments if min(s[1], end) - max(s[0], start) >= length / 2]
            if inside:
                yield start, end, inside
            start += length


def _check_segments(segments: str) -> None:
    try:
        valid = segments in ("whole", "labelled") or 0.5 <= float(segments) <= 3600
    except ValueError:
        valid = False
    must = "be whole, labelled, or a number of seconds from 0.5 to 3600"
    require(valid, "segments", must, segments, ShardUsageError)


def read_activitynet(
    videos: Path,
    path: Path,
    classes: Sequence[str] = (),
    *,
    split: str = "train",
    segments: str = "whole",
) -> Listing:
    """Read the videos of one subset of ActivityNet.

    split: train, val or test, or the name that the file uses.
    segments: "whole": each video is a sample with all its labels; "labelled": each labelled
        segment is a sample; a number: each piece of that many seconds is a sample with the labels
        that cover half of it, and pieces without a label are left out.

    Raises:
        ShardError: if the list is damaged or has no such subset.
        ShardUsageError: if `segments` is none of these.
    """
    _check_segments(segments)
    subset = SUBSETS.get(split, split)
    database = _read_database(path)
    entries = {name: e for name, e in sorted(database.items()) if e.get("subset") == subset}
    if not entries:
        known = ", ".join(sorted({str(e.get("subset")) for e in database.values()}))
        raise ShardError(f"{path}: no video of the subset {subset!r}; the subsets are {known}")
    labels = {label for entry in database.values() for _, _, label in _segments(entry)}
    names = tuple(classes) or tuple(sorted(labels))
    folder = VideoFolder(videos)
    sources: list[Source] = []
    for name, entry in entries.items():
        sources += _to_sources(folder, name, entry, segments, names)
    return Listing(sources, names)


def _to_sources(
    folder: VideoFolder, name: str, entry: dict[str, Any], mode: str, classes: Sequence[str]
) -> Iterator[Source]:
    path = folder.find(f"v_{name}") or folder.find(name)
    class_numbers = {label: number for number, label in enumerate(classes)}
    parts = _parts(mode, _duration(entry), _segments(entry))
    for number, (start, end, labelled) in enumerate(parts):
        unknown = [label for _, _, label in labelled if label not in class_numbers]
        if unknown:
            raise ShardError(f"video {name}: label {unknown[0]!r} is not among the classes")
        labels = tuple(dict.fromkeys(class_numbers[label] for _, _, label in labelled))
        yield Source(
            path or folder.root / f"v_{name}.mp4",
            labels[0] if labels else -1,
            clean_key(name) if mode == "whole" else f"{clean_key(name)}_{number:03d}",
            name=folder.relative_name(path) if path else name,
            labels=labels,
            start=start,
            end=end,
            segments=tuple((a, b, class_numbers[label]) for a, b, label in labelled),
        )
