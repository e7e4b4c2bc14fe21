"""Reads the lists of UCF101: trainlist01.txt, testlist01.txt and so on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shards.annotations.labels import Classes, is_class_number, read_classes, without_numbers
from shards.annotations.listing import Entry, Listing, make_listing
from shards.annotations.options import ListOptions
from shards.annotations.text import Line, quote, read_lines
from shards.annotations.video_folder import VideoFolder
from shards.errors import ShardError

CLASSES_FILE = "classInd.txt"


def read_ucf101(folder: VideoFolder, path: Path, classes: Classes, options: ListOptions) -> Listing:
    """Read `Class/video.avi label` lines, whose labels count from 1, or lines without a label.

    The label of a video follows from its folder; one in the list must agree. Without `classes`
    they are those of `classInd.txt` beside the list, else those of the training list itself. A
    file is found in any folder, and with any video suffix.

    Raises:
        ShardError: for the first wrong line.
    """
    lines = read_lines(path)
    if not lines:
        raise ShardError(f"{path}: the list is empty")
    rows = [_split(line) for line in lines]
    if not classes.names:
        classes = _find_classes(path, rows)
    classes = Classes(without_numbers(classes.names), classes.source)
    entries = [_to_entry(folder, *row, classes) for row in rows]
    return make_listing(folder, entries, path, classes, options)


def _split(line: Line) -> tuple[Line, str, str]:
    """Return (line, path, label), the label as text from "1", "" for none."""
    name, _, label = line.text.rpartition(" ")
    if not is_class_number(label):
        name, label = line.text, ""
    name = name.strip().replace("\\", "/")
    if name.count("/") != 1 or label == "0":
        raise ShardError(
            f"{line.place}: {quote(line.text)} is not 'Class/video.avi label' with a label from 1"
        )
    return line, name, label


def _find_classes(path: Path, rows: Sequence[tuple[Line, str, str]]) -> Classes:
    beside = path.with_name(CLASSES_FILE)
    if beside.is_file():
        return Classes(read_classes(beside), str(beside))
    numbers: dict[int, str] = {}
    for _, name, label in rows:
        if label:
            numbers.setdefault(int(label), name.partition("/")[0])
    if not numbers or sorted(numbers) != list(range(1, len(numbers) + 1)):
        raise ShardError(
            f"{path} does not have the label of every class: give --classes {CLASSES_FILE}, or "
            "shard the training split into the same --out first"
        )
    return Classes([numbers[number] for number in sorted(numbers)], str(path))


def _to_entry(folder: VideoFolder, line: Line, name: str, label: str, classes: Classes) -> Entry:
    class_name, _, file = name.partition("/")
    number = classes.number(class_name, line.place)
    if label and int(label) != number + 1:
        raise ShardError(
            f"{line.place}: label {label} is not that of {quote(class_name)}, which is "
            f"{number + 1}{classes.origin}"
        )
    found = folder.find(file.rpartition(".")[0] or file, class_name, line.place)
    return Entry(found[1] if found else name, (number,), line.place)
