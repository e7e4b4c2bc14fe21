"""Reads the split files of HMDB51: for each class and fold a file such as
`brush_hair_test_split1.txt`."""

from __future__ import annotations

import re
from pathlib import Path

from dsanet.errors import require
from shards.annotations.labels import Classes, label_warnings
from shards.annotations.listing import Entry, Listing, make_sources
from shards.annotations.options import ListOptions
from shards.annotations.text import Place, quote, read_lines
from shards.annotations.video_folder import VideoFolder
from shards.errors import ShardError, ShardUsageError

FILE_NAME = re.compile(r"(.+)_test_split([123])\.txt")
# What the number after a video means; 0 is a video that the fold does not use.
USES = {"train": "1", "val": "2", "test": "2"}


def read_hmdb51(
    folder: VideoFolder, path: Path, classes: Classes, options: ListOptions, split: str
) -> Listing:
    """Read the split files of one fold: `video.avi 1` is for training, 2 for testing, 0 unused.

    path: the folder of the split files, or one of them, which gives the class and the fold.
    classes: without them the names of the files in alphabetical order.
    split: train, or val or test, which are the same.

    Raises:
        ShardError: for the first wrong line, or a folder without split files.
        ShardUsageError: for another split.
    """
    require(split in USES, "split", "be train, val or test for hmdb51", split, ShardUsageError)
    files = _find_files(path, options.fold)
    wanted = [path] if not path.is_dir() else list(files.values())
    if not classes.names:
        classes = Classes(sorted(files))
    entries, labels = [], set()
    for file in wanted:
        name = FILE_NAME.fullmatch(file.name)[1]  # type: ignore[index]
        number = classes.number(name, Place(file))
        entries += _read_file(folder, file, name, number, USES[split])
        labels.add(number)
    warnings = label_warnings(labels, classes.names, path, given=True)
    sources = make_sources(folder, entries, options)
    return Listing(sources, classes.names, (*folder.warnings, *warnings))


def _find_files(path: Path, fold: int) -> dict[str, Path]:
    """Return the split files of a fold by the names of their classes."""
    match = FILE_NAME.fullmatch(path.name)
    parent, fold = (path.parent, int(match[2])) if match else (path, fold)
    try:
        names = sorted(entry.name for entry in parent.iterdir())
    except OSError as error:
        raise ShardError(
            f"cannot read the list {path}: {error.strerror}; it is the folder of the split files"
        ) from None
    matches = [found for name in names if (found := FILE_NAME.fullmatch(name))]
    files = {m[1]: parent / m[0] for m in matches if int(m[2]) == fold}
    if not files:
        raise ShardError(
            f"{parent} contains no file such as brush_hair_test_split{fold}.txt; --list is the "
            "folder of the split files of HMDB51"
        )
    return files


def _read_file(
    folder: VideoFolder, path: Path, class_name: str, number: int, wanted: str
) -> list[Entry]:
    entries = []
    for line in read_lines(path):
        name, _, use = line.text.rpartition(" ")
        if use not in ("0", "1", "2") or not name or "/" in name:
            raise ShardError(f"{line.place}: {quote(line.text)} is not 'video.avi 0', 1 or 2")
        if use == wanted:
            name = name.strip()
            found = folder.find(name.rpartition(".")[0] or name, class_name, line.place)
            relative = found[1] if found else f"{class_name}/{name}"
            entries.append(Entry(relative, (number,), line.place))
    return entries
