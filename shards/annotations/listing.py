"""Turns the entries of a list into sources: finds their files and their keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.annotations.labels import Classes, infer_names, label_warnings
from shards.annotations.options import ListOptions
from shards.annotations.text import Place, quote
from shards.annotations.video_folder import VideoFolder
from shards.build.plan import unique_keys
from shards.errors import ShardError
from shards.format.settings import Source

MAX_SECONDS = 1e6


@dataclass(frozen=True)
class Listing:
    """The sources of a list, the class names in the order of their labels, and warnings."""

    sources: list[Source]
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A sample as a list has it.

    Attributes:
        name: path of the video.
        labels: its class numbers; () for none.
        place: its place in the list.
        segment: start and end in seconds, () for the whole video.
        frames: first frame from 0, and number of frames, of a folder of frames; () for all.
    """

    name: str
    labels: tuple[int, ...]
    place: Place
    segment: tuple[float, ...] = ()
    frames: tuple[int, ...] = ()


def read_seconds(text: str, column: str, place: Place) -> float:
    """Return a time in seconds. Raises ShardError if it is not a finite number from 0."""
    if not text:
        raise ShardError(f"{place}: {column} is missing; a segment has both start and end")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < MAX_SECONDS:  # false for nan too
        raise ShardError(f"{place}: {column} must be a number of seconds from 0, not {quote(text)}")
    return seconds


def read_segment(start: str, end: str, place: Place, names: Sequence[str]) -> tuple[float, float]:
    """Return a segment in seconds. Raises ShardError if it has no length or is not numbers.

    names: the columns of start and end, for the message of an error.
    """
    segment = read_seconds(start, names[0], place), read_seconds(end, names[1], place)
    if not segment[0] < segment[1]:
        raise ShardError(f"{place}: the segment from {start} to {end} has no length")
    return segment


def make_listing(
    folder: VideoFolder,
    entries: Sequence[Entry],
    path: Path,
    classes: Classes,
    options: ListOptions,
) -> Listing:
    """Return the listing of entries whose paths are relative to the folder of videos.

    Raises:
        ShardError: for the first entry that cannot be a sample, or is there twice.
    """
    sources = make_sources(folder, entries, options)
    places: dict[int, Place] = {}
    for entry in entries:
        for label in entry.labels:
            places.setdefault(label, entry.place)
    names = classes.names or infer_names(places)
    warnings = label_warnings(set(places), names, path, bool(classes.names))
    return Listing(sources, names, (*folder.warnings, *warnings))


def make_sources(
    folder: VideoFolder, entries: Sequence[Entry], options: ListOptions
) -> list[Source]:
    """Return a source for each entry. Raises ShardError as `make_listing` does."""
    located = [folder.locate(entry.name, entry.place) for entry in entries]
    names = [name for _, name in located]
    _check_doubles(names, entries)
    keys = unique_keys([_key_name(n, e) for n, e in zip(names, entries, strict=True)])
    return [
        Source(
            file,
            entry.labels[0] if entry.labels else -1,
            key,
            name=name,
            labels=entry.labels if len(entry.labels) > 1 else (),
            start=entry.segment[0] if entry.segment else None,
            end=entry.segment[1] if entry.segment else None,
            fps=options.folder_fps,
            frames=entry.frames,
        )
        for (file, name), key, entry in zip(located, keys, entries, strict=True)
    ]


def _key_name(name: str, entry: Entry) -> str:
    if entry.segment:
        start, end = (f"{1000 * seconds:.0f}" for seconds in entry.segment)
        return f"{Path(name).with_suffix('')}_{start}_{end}"
    if entry.frames:
        return f"{name}_{entry.frames[0]:06d}_{entry.frames[1]:06d}"
    return name


def _check_doubles(names: Iterable[str], entries: Iterable[Entry]) -> None:
    seen: dict[tuple[object, ...], Entry] = {}
    for name, entry in zip(names, entries, strict=True):
        milliseconds = tuple(round(1000 * seconds) for seconds in entry.segment)
        first = seen.setdefault((name, milliseconds, entry.frames), entry)
        if first is entry:
            continue
        reason = "is listed twice"
        if first.labels != entry.labels:
            reason += f", with the labels {_join(first.labels)} and {_join(entry.labels)}"
        raise ShardError(
            f"{first.place.with_other(entry.place)}: {quote(name)} {reason}; delete one of them"
        )


def _join(labels: tuple[int, ...]) -> str:
    return " ".join(map(str, labels)) or "(none)"
