"""Finds the file of a video id in a folder, however the copy of the data set is laid out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shards.errors import ShardError

SUFFIXES = {
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".3gp", ".mpg", ".mpeg"),
    *(".wmv", ".ts", ".ogv"),
}


def normalise_class_name(name: str) -> str:
    """Return a class name in lower case, with spaces for underscores, to compare it with others."""
    return " ".join(name.replace("_", " ").lower().split())


class VideoFolder:
    """The video files under a folder, by their names without the suffix.

    The folder is walked once, without asking for the status of files: they are many, and on slow
    disks.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ShardError(f"{root}: the folder of videos does not exist; mount it or correct it")
        self.root = root
        self._paths: dict[str, list[str]] = {}
        for path in _walk(root):
            stem, suffix = os.path.splitext(os.path.basename(path))
            if suffix.lower() in SUFFIXES:
                self._paths.setdefault(stem, []).append(path)

    def find(self, stem: str, class_name: str = "") -> Path | None:
        """Return the file named `stem`, or None.

        Of several files, one in a folder of replacements for broken files comes first, then one
        in the folder of its class, then the first by name.
        """

        def rank(path: str) -> tuple[bool, bool, str]:
            folders = os.path.dirname(path).split(os.sep)
            of_class = normalise_class_name(folders[-1]) == normalise_class_name(class_name)
            return (not any("replacement" in f for f in folders), not of_class, path)

        paths = self._paths.get(stem)
        return self.root / min(paths, key=rank) if paths else None

    def relative_name(self, path: Path) -> str:
        """Return a path relative to the folder."""
        return path.relative_to(self.root).as_posix()


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        inside = os.path.relpath(folder, root)
        for name in files:
            yield os.path.normpath(os.path.join(inside, name))
