"""Reads lists of "relative/path.mp4 label" lines, and CSV files with columns path and label."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from shards.annotations.labels import Classes
from shards.annotations.listing import Entry, Listing, make_listing, read_segment
from shards.annotations.options import ListOptions
from shards.annotations.table import Row, read_table
from shards.annotations.text import Line, quote, read_lines
from shards.annotations.video_folder import VideoFolder, has_video_suffix
from shards.errors import ShardError

SEVERAL_NUMBERS = re.compile(r"(.*?)((?:[ \t]+\d+)+)")


def read_folder(folder: VideoFolder, path: Path, classes: Classes, options: ListOptions) -> Listing:
    """Read "relative/path.mp4 label" lines; a label is a number, or the name of a class.

    Path and label are divided by the last blank or tab. Without class names the classes are the
    numbers. A class name may contain blanks.

    Raises:
        ShardError: for the first wrong line.
    """
    lines = read_lines(path)
    if not lines:
        raise ShardError(f"{path}: the list is empty")
    entries = [_read_line(folder, line, classes, options) for line in lines]
    return make_listing(folder, entries, path, classes, options)


def _read_line(folder: VideoFolder, line: Line, classes: Classes, options: ListOptions) -> Entry:
    if options.unlabelled:
        return Entry(line.text, (), line.place)
    if line.text.startswith("# "):
        raise ShardError(f"{line.place}: {quote(line.text)} is a comment; delete the line")
    name, label = _split_line(line.text, classes.numbers)
    if not name:
        remedy = _remedy(line.text)
        raise ShardError(f"{line.place}: {quote(line.text)} is not 'path.mp4 label'{remedy}")
    _refuse_several_numbers(folder, name, line)
    return Entry(name, (classes.number(label, line.place),), line.place)


def _remedy(text: str) -> str:
    """Return what to do about a line without a blank."""
    if has_video_suffix(text):
        return "; a list without labels needs --unlabelled"
    if "," in text:
        return "; a list with commas needs --dataset csv, and --columns path,label without a header"
    return ""


def _split_line(text: str, numbers: Mapping[str, int]) -> tuple[str, str]:
    """Return (path, label); the label is the longest class name that ends the line, or a word."""
    if "\t" in text:
        name, _, label = text.rpartition("\t")
        return name.strip(), label.strip()
    words = text.split(" ")
    for first in range(1, len(words)):
        if (label := " ".join(words[first:])) in numbers:
            return " ".join(words[:first]).strip(), label
    name, _, label = text.rpartition(" ")
    return name.strip(), label


def _refuse_several_numbers(folder: VideoFolder, name: str, line: Line) -> None:
    """Raise ShardError for a line of another format: several labels, or numbers of frames.

    A name that ends with a number is not one, if there is such a file.
    """
    match = SEVERAL_NUMBERS.fullmatch(name)
    if not match or has_video_suffix(name) or os.path.exists(folder.locate(name, line.place)[0]):
        return
    columns = len(match[2].split()) + 1
    kind = "labels" if has_video_suffix(match[1]) else "numbers"
    remedy = "--dataset mmaction2 --multi-label" if kind == "labels" else "--dataset mmaction2"
    raise ShardError(
        f"{line.place}: {columns} {kind} after {quote(match[1])}; lists with more than a path and "
        f"a label, such as 'folder frames label', need {remedy}"
    )


def read_csv(folder: VideoFolder, path: Path, classes: Classes, options: ListOptions) -> Listing:
    """Read a CSV file with the columns path and label, and perhaps start and end (seconds).

    start and end cut a segment out of a longer video.

    Raises:
        ShardError: for the first wrong line.
    """
    needed = ("path",) if options.unlabelled else ("path", "label")
    rows = read_table(path, needed, options)
    entries = [
        Entry(
            row["path"],
            () if options.unlabelled else (classes.number(row["label"], row.place),),
            row.place,
            _read_segment(row),
        )
        for row in rows
    ]
    return make_listing(folder, entries, path, classes, options)


def _read_segment(row: Row) -> tuple[float, ...]:
    start, end = row["start"], row["end"]
    if not start and not end:
        return ()
    return read_segment(start or "0", end, row.place, ("start", "end"))
