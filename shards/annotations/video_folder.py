"""Finds the videos of a list in their folder, and keeps the list inside that folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from shards.annotations.text import Place, quote
from shards.errors import ShardError

SUFFIXES = {
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".3gp", ".mpg", ".mpeg"),
    *(".wmv", ".ts", ".ogv"),
}
MAX_PATH, MAX_NAME = 4096, 255  # bytes, of Linux
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
OUTSIDE = "outside the folder of videos; correct the list, or allow it with --allow-outside"
NOT_FOLLOWED = "outside the folder of videos, and is not followed without --allow-outside"


def normalise_class_name(name: str) -> str:
    """Return a class name in lower case, with spaces for underscores, to compare it with others."""
    return " ".join(name.replace("_", " ").lower().split())


def has_video_suffix(name: str) -> bool:
    """Whether a file name ends like that of a video."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def to_file_name(text: str) -> str:
    """Return the text of a list as Python names the file.

    Lists are UTF-8, and so are the names on disk; where the locale has another encoding, Python
    writes the bytes of such a name with other characters.
    """
    return os.fsdecode(text.encode())


def to_text(file_name: str) -> str:
    """Return the name of a file as UTF-8 text; bytes that are not UTF-8 become escapes."""
    return os.fsencode(file_name).decode(errors="backslashreplace")


class VideoFolder:
    """The folder that `--videos` names.

    A path of a list, and a symbolic link that it goes through, must not lead out of the folder
    unless `allow_outside` is set: a list may come from a stranger. Folders are listed, but files
    are not asked for their status: they are many, and on slow disks.

    Attributes:
        warnings: the links that `find` did not follow.

    Raises:
        ShardError: if the folder does not exist.
    """

    def __init__(self, root: Path, allow_outside: bool = False) -> None:
        if not root.is_dir():
            raise ShardError(f"{root}: the folder of videos does not exist; mount it or correct it")
        self.root = root
        self.allow_outside = allow_outside
        self.warnings: list[str] = []
        self._absolute = os.path.abspath(root)
        self._real = os.path.realpath(root)
        self._folders: dict[str, tuple[bool, frozenset[str]]] = {}

    def locate(self, name: str, place: Place) -> tuple[Path, str]:
        """Return a path of the list as a path on this machine, and relative to the folder.

        `./a.mp4` and `b/../a.mp4` are `a.mp4`, and so is an absolute path to the same file.

        Raises:
            ShardError: if the name is not a path, or leads out of the folder.
        """
        if not name or "\0" in name or _is_too_long(name):
            raise ShardError(f"{place}: {quote(name)} is not a path")
        if ADDRESS.match(name):
            raise ShardError(
                f"{place}: {quote(name)} is an address; download the videos and list their paths"
            )
        relative = self._relative(to_file_name(name))
        self._check_inside(relative, name, place)
        return self._describe(relative)

    def _describe(self, relative: str) -> tuple[Path, str]:
        return self.root / relative, to_text(relative)

    def _check_inside(self, relative: str, name: str, place: Place) -> None:
        if not self.allow_outside and self._is_outside(relative):
            leads = "is" if relative.startswith("..") else "leads through a symbolic link"
            raise ShardError(f"{place}: {quote(name)} {leads} {OUTSIDE}")

    def _relative(self, name: str) -> str:
        path = os.path.normpath(name)
        if not path.startswith((os.sep, os.pardir)):  # nearly all paths: the rest is slow
            return path
        path = os.path.normpath(os.path.join(self._absolute, name))
        inside_real = os.path.isabs(name) and _is_below(path, self._real)
        return os.path.relpath(path, self._real if inside_real else self._absolute)

    def _is_outside(self, relative: str) -> bool:
        """Whether a path leaves the folder, by `..` or through a symbolic link."""
        if relative == ".." or relative.startswith("../"):
            return True
        inner, _, name = relative.rpartition("/")
        if inner not in self._folders:
            parent = os.path.join(self._absolute, inner)
            outside = not _is_below(os.path.realpath(parent), self._real)
            self._folders[inner] = outside, _links_in(parent)
        outside, links = self._folders[inner]
        if name in links:
            path = os.path.realpath(os.path.join(self._absolute, relative))
            return not _is_below(path, self._real)
        return outside

    @cached_property
    def top_entries(self) -> frozenset[str]:
        """The names of the files and folders directly in the folder, as UTF-8 text."""
        return frozenset(map(to_text, os.listdir(self._absolute)))

    def find(self, stem: str, class_name: str, place: Place) -> tuple[Path, str] | None:
        """Return the video file named `stem`, in any folder, as `locate` does; None without one.

        Of several files, one in a folder of replacements for broken files comes first, then one
        in the folder of its class, then the first by name.

        Raises:
            ShardError: if it is a link that leads out of the folder.
        """

        wanted = normalise_class_name(class_name)

        def rank(path: str) -> tuple[bool, bool, str]:
            folders = os.path.dirname(path).split(os.sep)
            of_class = normalise_class_name(to_text(folders[-1])) == wanted
            return (not any("replacement" in f for f in folders), not of_class, path)

        paths = self._files.get(stem)
        if not paths:
            return None
        path = min(paths, key=rank)
        self._check_inside(path, to_text(path), place)
        return self._describe(path)

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """The paths of the video files, relative to the folder, by their names without suffix."""
        paths: dict[str, list[str]] = {}
        for path in self._walk():
            stem, suffix = os.path.splitext(os.path.basename(path))
            if suffix.lower() in SUFFIXES:
                paths.setdefault(to_text(stem), []).append(path)
        return paths

    def _walk(self) -> Iterator[str]:
        """Yield the files in all folders; links to folders are followed, once and inside only."""
        seen: set[str] = set()
        for folder, folders, files in os.walk(self._absolute, followlinks=True):
            real = os.path.realpath(folder)
            inside = os.path.relpath(folder, self._absolute)
            if not self.allow_outside and not _is_below(real, self._real):
                self.warnings.append(f"{to_text(inside)} is a link to a folder {NOT_FOLLOWED}")
            elif real not in seen:
                seen.add(real)
                folders.sort()
                yield from (os.path.normpath(os.path.join(inside, name)) for name in files)
                continue
            folders.clear()


def _is_too_long(name: str) -> bool:
    """Whether Linux has no room for a path or for a name in it."""
    if len(name) < MAX_NAME // 4:  # in UTF-8 at most four bytes a character
        return False
    data = name.encode()
    return len(data) > MAX_PATH or any(len(part) > MAX_NAME for part in data.split(b"/"))


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _links_in(folder: str) -> frozenset[str]:
    """Return the names of the symbolic links in a folder."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink())
    except OSError:  # no such folder: its videos are missing
        return frozenset()
