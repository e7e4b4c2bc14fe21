"""Find the file of a video id in the copies of data sets that people have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shards.errors import ShardError

SUFFIXES = {
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".3gp", ".mpg", ".mpeg"),
    *(".wmv", ".ts", ".ogv"),
}


def normal_name(name: str) -> str:
    """A class name as lists and folders agree on it: lower case, spaces for underscores."""
    return " ".join(name.replace("_", " ").lower().split())


class VideoFolder:
    """Every video file under a folder, by its name without the suffix; one walk, no stats."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ShardError(f"the folder of videos {root} does not exist: mount it or correct it")
        self.root = root
        self._paths: dict[str, list[str]] = {}
        for path in _walk(root):
            stem, suffix = os.path.splitext(os.path.basename(path))
            if suffix.lower() in SUFFIXES:
                self._paths.setdefault(stem, []).append(path)

    def find(self, stem: str, class_name: str = "") -> Path | None:
        """The file named `stem`; of several, one in a folder of replacements for broken files,
        then one in the folder of its class, then the first by name."""

        def rank(path: str) -> tuple[bool, bool, str]:
            folders = os.path.dirname(path).split(os.sep)
            of_class = normal_name(folders[-1]) == normal_name(class_name)
            return (not any("replacement" in f for f in folders), not of_class, path)

        found = self._paths.get(stem)
        return self.root / min(found, key=rank) if found else None

    def name(self, path: Path) -> str:
        """A found path as it is told to others: relative to the folder."""
        return path.relative_to(self.root).as_posix()


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        inside = os.path.relpath(folder, root)
        for name in files:
            yield os.path.normpath(os.path.join(inside, name))
