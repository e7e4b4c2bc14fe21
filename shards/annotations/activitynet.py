"""Reads the lists of ActivityNet v1.3: JSON files of untrimmed videos with labelled segments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dsanet.errors import require
from shards.annotations.labels import Classes, label_warnings
from shards.annotations.listing import Listing
from shards.annotations.options import ListOptions
from shards.annotations.text import MAX_QUOTED, Place, quote, read_json
from shards.annotations.video_folder import VideoFolder
from shards.build.plan import clean_key
from shards.errors import ShardError, ShardUsageError
from shards.format.settings import Source

SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
Segment = tuple[float, float, str]


def is_database(data: Any) -> bool:
    """Whether the content of a JSON file is a list of ActivityNet, as published or mmaction2's."""
    return isinstance(data, dict) and (
        "database" in data
        or (bool(data) and all(isinstance(v, dict) and "annotations" in v for v in data.values()))
    )


def _read_database(path: Path) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return the videos by name, and whether they name their subsets.

    A file of mmaction2 (`anet_anno_train.json`) is one subset; its names begin with "v_".
    """
    data = read_json(path)
    if not is_database(data):
        raise ShardError(
            f"{path} is not the JSON file of ActivityNet: it has no 'database', nor videos with "
            "'annotations'"
        )
    database = data.get("database", data)
    if not isinstance(database, dict):
        raise ShardError(f"{path}: 'database' is not an object with an entry for each video")
    for name, entry in database.items():
        try:
            _segments(entry)
            _duration(entry)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"[:MAX_QUOTED]
            raise ShardError(
                f"{path}, video {name[:MAX_QUOTED]}: the entry is damaged ({text})"
            ) from None
    if "database" in data:
        return database, True
    return {name.removeprefix("v_"): entry for name, entry in database.items()}, False


def _duration(entry: dict[str, Any]) -> float:
    return _finite(entry.get("duration") or entry.get("duration_second") or 0)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a time")
    return number


def _segments(entry: dict[str, Any]) -> list[Segment]:
    """Return the labelled segments (start, end, label) that are not empty, in order of time."""
    segments = []
    for annotation in entry.get("annotations") or ():
        start, end = map(_finite, annotation["segment"])
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
    folder: VideoFolder, path: Path, classes: Classes, options: ListOptions, split: str
) -> Listing:
    """Read the videos of one subset of ActivityNet, or of a file that mmaction2 has made of one.

    options.segments: "whole": each video is a sample with all its labels; "labelled": each
        labelled segment is a sample; a number: each piece of that many seconds is a sample with
        the labels that cover half of it, and pieces without a label are left out.
    split: train, val or test, or the name that the file uses.

    Raises:
        ShardError: if the list is damaged or has no such subset.
        ShardUsageError: if `options.segments` is none of these.
    """
    _check_segments(options.segments)
    subset = SUBSETS.get(split, split)
    database, has_subsets = _read_database(path)
    entries = dict(sorted(database.items()))
    if has_subsets:
        entries = {name: e for name, e in entries.items() if e.get("subset") == subset}
    if not entries:
        known = ", ".join(sorted({str(e.get("subset")) for e in database.values()}))[:200]
        raise ShardError(f"{path}: no video of the subset {subset!r}; the subsets are {known}")
    labels = {label for entry in database.values() for _, _, label in _segments(entry)}
    if not classes.names:
        classes = Classes(sorted(labels))
    sources: list[Source] = []
    for name, entry in entries.items():
        sources += _to_sources(folder, name, entry, options.segments, classes, Place(path))
    used = {label for source in sources for label in source.all_labels}
    warnings = label_warnings(used, classes.names, path, given=True)
    return Listing(sources, classes.names, (*folder.warnings, *warnings))


def _to_sources(
    folder: VideoFolder,
    name: str,
    entry: Mapping[str, Any],
    mode: str,
    classes: Classes,
    place: Place,
) -> Iterator[Source]:
    found = folder.find(f"v_{name}", "", place) or folder.find(name, "", place)
    path = found[0] if found else folder.locate(f"v_{name}.mp4", place)[0]
    parts = _parts(mode, _duration(dict(entry)), _segments(dict(entry)))
    for number, (start, end, labelled) in enumerate(parts):
        unknown = [label for _, _, label in labelled if label not in classes.numbers]
        if unknown:
            raise ShardError(
                f"{place}, video {quote(name)}: label {quote(unknown[0])} is not one of the "
                f"{len(classes.names)} classes{classes.origin}"
            )
        labels = tuple(dict.fromkeys(classes.numbers[label] for _, _, label in labelled))
        yield Source(
            path,
            labels[0] if labels else -1,
            clean_key(name) if mode == "whole" else f"{clean_key(name)}_{number:03d}",
            name=found[1] if found else name,
            labels=labels,
            start=start,
            end=end,
            segments=tuple((a, b, classes.numbers[label]) for a, b, label in labelled),
        )
