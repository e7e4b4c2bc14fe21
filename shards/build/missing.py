"""Explains why none of the videos of a list is there."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from shards.errors import ShardError
from shards.format.settings import Source

MAX_SHOWN = 300  # characters of a path in a message
MAX_ENTRIES = 10_000  # of a folder, read in search of a similar name


def find_video_folder(sources: Sequence[Source]) -> Path:
    """Return the folder that holds all the sources.

    Raises:
        ShardError: if it does not exist, or none of the sources does.
    """
    root = Path(os.path.commonpath([source.path.absolute().parent for source in sources]))
    if any(os.path.exists(source.path) for source in sources):
        return root
    first = sources[0]
    folder = str(root)[:MAX_SHOWN]
    tried = f"the first path tried is {str(first.path)[:MAX_SHOWN]}"
    if not root.is_dir():
        raise ShardError(
            f"{folder}: the folder of videos does not exist, {tried}; mount it, or correct "
            "--videos or the list"
        )
    raise ShardError(
        f"{folder}: none of the {len(sources)} videos of the list is there, {tried}"
        f"{_hint(first)}; correct --videos or the list"
    )


def _hint(source: Source) -> str:
    """Return what may be wrong with a path, "" if nothing is found."""
    if "\\" in source.name and Path(str(source.path).replace("\\", "/")).exists():
        return ", which has backslashes in place of /"
    similar = _find_similar(source.path)
    return f", where there is {similar}" if similar else ""


def _find_similar(path: Path) -> str:
    """Return the path of a file that differs in case, suffix or Unicode normalisation alone."""
    found = Path(path.anchor)
    for part in path.parts[len(found.parts) :]:
        names = [name for name in _names(found) if _folded(name) == _folded(part)]
        names += [n for n in _names(found) if _folded(os.path.splitext(n)[0]) == _folded(part)]
        if (found / part).exists():
            names.insert(0, part)
        if not names:
            return ""
        found /= names[0]
    return str(found)


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return sorted(entry.name for entry in itertools.islice(entries, MAX_ENTRIES))
    except OSError:
        return []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
