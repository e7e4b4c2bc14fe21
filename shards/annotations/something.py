"""Reads the lists of Something-Something V1 (folders of JPEG frames) and V2 (WebM files)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shards.annotations.labels import Classes
from shards.annotations.listing import Entry, Listing, make_listing
from shards.annotations.options import ListOptions
from shards.annotations.text import Place, quote, read_json, read_lines
from shards.annotations.video_folder import SUFFIXES, VideoFolder
from shards.errors import ShardError

RATE = "12"  # frames per second of the folders


@dataclass(frozen=True)
class Item:
    """A video of a list: its id, and its label, "" for none."""

    id: str
    label: str
    place: Place


def read_something_v1(
    folder: VideoFolder, path: Path, classes: Classes, options: ListOptions
) -> Listing:
    """Read `id;label` lines; the frames of a video are in the folder of its id.

    classes: the lines of the data set's labels file; without them, the labels of the list in
        alphabetical order. A list without any label is a test list.

    Raises:
        ShardError: for the first wrong line.
    """
    items = _read_lines(path)
    return _make_listing(folder, items, [item.id for item in items], path, classes, options)


def read_something_v2(
    folder: VideoFolder, path: Path, classes: Classes, options: ListOptions
) -> Listing:
    """Read the JSON lists of V2; the file of a video is its id with any video suffix.

    A folder of frames named by the id is taken too. The label of a video is its template without
    the brackets. `test.json` has ids alone; the answers to it are `id;label` lines.

    Raises:
        ShardError: for the first wrong entry.
    """
    items = _read_json_items(path) if path.suffix.lower() == ".json" else _read_lines(path)
    files = {item.id: item.id for item in items}
    for entry in folder.top_entries:
        stem, _, suffix = entry.rpartition(".")
        if stem in files and f".{suffix.lower()}" in SUFFIXES:
            files[stem] = entry
    names = [
        files[item.id] if files[item.id] in folder.top_entries else _find(folder, item)
        for item in items
    ]
    return _make_listing(folder, items, names, path, classes, options)


def _find(folder: VideoFolder, item: Item) -> str:
    found = folder.find(item.id, item.label, item.place)
    return found[1] if found else f"{item.id}.webm"


def _read_lines(path: Path) -> list[Item]:
    items = []
    for line in read_lines(path):
        name, _, label = (part.strip() for part in line.text.partition(";"))
        if not name or "," in name:
            raise ShardError(f"{line.place}: {quote(line.text)} is not 'id;label'")
        items.append(Item(name, label, line.place))
    return items


def _read_json_items(path: Path) -> list[Item]:
    data = read_json(path)
    if not isinstance(data, list):
        raise ShardError(f"{path} is not a list of Something-Something V2: it is not a JSON array")
    return [_to_item(entry, Place(path, number, "entry")) for number, entry in enumerate(data, 1)]


def _to_item(entry: Any, place: Place) -> Item:
    if not isinstance(entry, dict):
        raise ShardError(f"{place}: {quote(str(entry))} is not an object with an id")
    name, template = entry.get("id"), entry.get("template", "")
    if not isinstance(name, (str, int)) or not str(name) or not isinstance(template, str):
        raise ShardError(f"{place}: no id, or a template that is not text")
    return Item(str(name), template.replace("[", "").replace("]", ""), place)


def _make_listing(
    folder: VideoFolder,
    items: Sequence[Item],
    names: Sequence[str],
    path: Path,
    classes: Classes,
    options: ListOptions,
) -> Listing:
    if not items:
        raise ShardError(f"{path}: the list is empty")
    labelled = any(item.label for item in items)
    if not classes.names:
        classes = Classes(sorted({item.label for item in items if item.label}))
    entries = []
    for item, name in zip(items, names, strict=True):
        if labelled and not item.label:
            raise ShardError(
                f"{item.place}: no label, though others have one; add it or take {item.id} out"
            )
        labels = (classes.number(item.label, item.place),) if item.label else ()
        entries.append(Entry(name, labels, item.place))
    options = replace(options, folder_fps=options.folder_fps or RATE)
    return make_listing(folder, entries, path, classes, options)
