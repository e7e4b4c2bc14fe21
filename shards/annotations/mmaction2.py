"""Reads the lists of mmaction2, of videos and of folders of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shards.annotations.activitynet import is_database, read_activitynet
from shards.annotations.labels import Classes, is_class_number
from shards.annotations.listing import Entry, Listing, make_listing
from shards.annotations.options import ListOptions
from shards.annotations.text import Line, Place, quote, read_json, read_lines
from shards.annotations.video_folder import VideoFolder, has_video_suffix
from shards.errors import ShardError

FORMS = "'video label', 'folder frames label' or 'folder first-frame frames label'"


def read_mmaction2(
    folder: VideoFolder, path: Path, classes: Classes, options: ListOptions, split: str
) -> Listing:
    """Read a list in one of mmaction2's formats.

    A line is `video label`, `folder frames label` or, for clips out of longer videos,
    `folder first frames label`, where `first` counts from 0; all parts but the path are numbers.
    With `options.multi_label` a line may end with several labels, and then has no `first`. A JSON
    file is either an array of objects with the same parts (mmaction2's `anno_txt2json.py`) or a
    list of ActivityNet.

    Raises:
        ShardError: for the first wrong line.
    """
    if path.suffix.lower() == ".json":
        data = read_json(path)
        if is_database(data):
            return read_activitynet(folder, path, classes, options, split)
        entries = _read_objects(data, path, classes, options)
    else:
        lines = read_lines(path)
        if not lines:
            raise ShardError(f"{path}: the list is empty")
        entries = [_read_line(line, classes, options) for line in lines]
    return make_listing(folder, entries, path, classes, options)


def _split_numbers(text: str) -> tuple[str, list[str]]:
    """Return the path at the beginning of a line, which may contain blanks, and the other words."""
    words = text.split()
    ends = [i for i, word in enumerate(words, 1) if has_video_suffix(word)]
    if ends:
        count = len(words) - ends[-1]
    else:
        numbers = [is_class_number(word) for word in words[1:]]
        count = numbers[::-1].index(False) if False in numbers else len(numbers)
    rest = words[len(words) - count :]
    name = text
    for word in reversed(rest):
        name = name.removesuffix(word).rstrip()
    return name, rest


def _read_line(line: Line, classes: Classes, options: ListOptions) -> Entry:
    name, words = _split_numbers(line.text)
    is_video = has_video_suffix(name)
    labels = 0 if options.unlabelled else 1
    if is_video or not words:
        frames: list[str] = []
    else:
        count = 1 if options.multi_label else min(max(len(words) - labels, 1), 2)
        frames, words = words[:count], words[count:]
    right = len(words) == labels or (options.multi_label and len(words) > labels)
    if not right or not all(is_class_number(word) for word in frames):
        hint = "; several labels need --multi-label" if len(words) > labels else ""
        if len(frames) == 1 and not words:
            hint = "; lists of folders without their numbers of frames need --dataset folder"
        raise ShardError(f"{line.place}: {quote(line.text)} is not {FORMS}{hint}")
    return Entry(
        name,
        tuple(dict.fromkeys(classes.number(word, line.place) for word in words)),
        line.place,
        frames=_to_range([int(word) for word in frames], line.place),
    )


def _to_range(frames: list[int], place: Place) -> tuple[int, ...]:
    """Return (first, count) of "count" or "first count"; () for neither."""
    if not frames:
        return ()
    first, count = (0, *frames) if len(frames) == 1 else frames
    if count < 1:
        raise ShardError(f"{place}: a video of {count} frames; correct or delete the line")
    return first, count


def _read_objects(data: Any, path: Path, classes: Classes, options: ListOptions) -> list[Entry]:
    if not isinstance(data, list) or not data:
        raise ShardError(
            f"{path} is neither an array of objects with filename or frame_dir, and label, nor a "
            "list of ActivityNet"
        )
    places = [Place(path, number, "entry") for number in range(1, len(data) + 1)]
    return [_read_object(e, p, classes, options) for e, p in zip(data, places, strict=True)]


def _read_object(entry: Any, place: Place, classes: Classes, options: ListOptions) -> Entry:
    if not isinstance(entry, dict):
        raise ShardError(f"{place}: {quote(str(entry))} is not an object")
    name = entry.get("filename") or entry.get("frame_dir")
    labels = entry.get("label", [])
    labels = labels if isinstance(labels, list) else [labels]
    if not isinstance(name, str) or (not labels and not options.unlabelled):
        raise ShardError(f"{place}: no filename or frame_dir, or no label")
    if len(labels) > 1 and not options.multi_label:
        raise ShardError(f"{place}: several labels need --multi-label")
    frames = [entry[key] for key in ("offset", "total_frames") if key in entry]
    if not all(isinstance(n, int) and is_class_number(str(n)) for n in frames):
        raise ShardError(f"{place}: offset and total_frames must be whole numbers from 0")
    numbers = [] if options.unlabelled else [classes.number(str(label), place) for label in labels]
    is_folder = "frame_dir" in entry and "total_frames" in entry
    return Entry(
        name, tuple(dict.fromkeys(numbers)), place,
        frames=_to_range(frames, place) if is_folder else (),
    )  # fmt: skip
