"""Renames what is damaged in a run folder, or is of another kind than the run's own files.

Nothing is deleted: a warning names the file, and the name that it has now.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shards.format.files import write_atomic

Report = Callable[[str], None]


def set_aside(path: Path, report: Report, then: str = "started anew") -> None:
    """Rename a file or folder to NAME.damaged, or NAME.damaged-2 and so on where there is one.

    report: is called with a warning. then: what happens in its place.

    Raises:
        OSError: when it cannot be renamed.
    """
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists() and not (aside.is_file() and path.is_file()):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    path.rename(aside)
    report(f"WARNING: {path}: damaged, renamed to {aside.name} and {then}")


def is_there(path: Path, report: Report) -> bool:
    """Whether there is a file at a path; what is no regular file (a pipe, a folder) is renamed."""
    if path.is_file():
        return True
    if path.exists() or path.is_symlink():
        set_aside(path, report)
    return False


def keep_lines(path: Path, wanted: Callable[[bytes], bool | None], report: Report) -> None:
    """Keep the wanted lines of a file, and move its damaged ones to NAME.damaged.

    wanted: of a line with its end; None for a damaged one.
    report: is called with a warning if there are damaged lines.
    """
    keep, damaged = [], []
    for line in path.read_bytes().splitlines(keepends=True):
        is_wanted = wanted(line)
        if is_wanted is None:
            damaged.append(line.rstrip(b"\n") + b"\n")
        elif is_wanted:
            keep.append(line)
    if damaged:
        aside = path.with_name(f"{path.name}.damaged")
        with aside.open("ab") as file:
            file.writelines(damaged)
        lines = "1 damaged line" if len(damaged) == 1 else f"{len(damaged)} damaged lines"
        report(f"WARNING: {path}: {lines} moved to {aside.name}")
    write_atomic(path, b"".join(keep))
