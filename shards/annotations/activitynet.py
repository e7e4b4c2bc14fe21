"""ActivityNet v1.3: the official JSON; untrimmed videos with labelled segments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shards.annotations.files import VideoFolder
from shards.annotations.plain import Listing
from shards.build.plan import clean_key
from shards.errors import ShardError, ShardUsageError
from shards.format.settings import Source

SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
Segment = tuple[float, float, str]


def _read_database(path: Path) -> dict[str, dict[str, Any]]:
    try:
        database = json.loads(path.read_text())["database"]
    except OSError as error:
        raise ShardError(f"cannot read the list {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ShardError(f"{path} is not ActivityNet's JSON: it has no 'database'") from None
    if not isinstance(database, dict):
        raise ShardError(f"{path}: 'database' is not an object of videos by their id")
    for name, entry in database.items():
        try:
            _segments(entry)
            _duration(entry)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"
            raise ShardError(f"{path}, video {name}: its entry is damaged ({text})") from None
    return database


def _duration(entry: dict[str, Any]) -> float:
    return float(entry.get("duration") or 0)


def _segments(entry: dict[str, Any]) -> list[Segment]:
    """Labelled segments (start, end, label) with a length, in order of time."""
    found = []
    for annotation in entry.get("annotations") or ():
        start, end = map(float, annotation["segment"])
        if end > start:
            found.append((start, end, str(annotation["label"])))
    return sorted(found)


def _parts(mode: str, duration: float, segments: list[Segment]) -> Iterator[tuple[Any, Any, list]]:
    """(start, end, the segments that label it) of each sample of a video."""
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


def check_mode(mode: str) -> str:
    """The mode, if it is one. Raises ShardUsageError."""
    try:
        good = mode in ("whole", "labelled") or 0.5 <= float(mode) <= 3600
    except ValueError:
        good = False
    if not good:
        raise ShardUsageError(
            f"--segments {mode!r}: write whole, labelled or seconds (0.5 to 3600)"
        )
    return mode


def read_activitynet(
    videos: Path,
    path: Path,
    classes: Sequence[str] = (),
    *,
    split: str = "train",
    segments: str = "whole",
) -> Listing:
    """The videos of `split` (train, val, test, or the subset's own name).

    `segments` = "whole": a sample is a video with all its labels; "labelled": a sample is one
    labelled segment; a number: pieces of so many seconds, each with the labels that cover half of
    it, pieces without a label left out. Raises ShardError for a list without such a subset.
    """
    mode, subset = check_mode(segments), SUBSETS.get(split, split)
    database = _read_database(path)
    chosen = {name: e for name, e in sorted(database.items()) if e.get("subset") == subset}
    if not chosen:
        there = ", ".join(sorted({str(e.get("subset")) for e in database.values()}))
        raise ShardError(f"{path} has no video of the subset {subset!r}, only of {there}")
    everywhere = {label for entry in database.values() for _, _, label in _segments(entry)}
    names = tuple(classes) or tuple(sorted(everywhere))
    folder = VideoFolder(videos)
    sources = [s for name, e in chosen.items() for s in _to_sources(folder, name, e, mode, names)]
    return Listing(sources, names)


def _to_sources(
    folder: VideoFolder, name: str, entry: dict[str, Any], mode: str, classes: Sequence[str]
) -> Iterator[Source]:
    path = folder.find(f"v_{name}") or folder.find(name)
    numbers = {label: number for number, label in enumerate(classes)}
    parts = _parts(mode, _duration(entry), _segments(entry))
    for count, (start, end, found) in enumerate(parts):
        unknown = [label for _, _, label in found if label not in numbers]
        if unknown:
            raise ShardError(f"video {name}: label {unknown[0]!r} is not among the classes")
        labels = tuple(dict.fromkeys(numbers[label] for _, _, label in found))
        yield Source(
            path or folder.root / f"v_{name}.mp4",
            labels[0] if labels else -1,
            clean_key(name) if mode == "whole" else f"{clean_key(name)}_{count:03d}",
            name=folder.name(path) if path else name,
            labels=labels,
            start=start,
            end=end,
            segments=tuple((a, b, numbers[label]) for a, b, label in found),
        )
