"""Upgrades tars of format version 1 to version 2, for tools that cannot read version 1.

Only the headers of the frame tables and the version in the record change, and they stay as long as
they are: no member moves, and no video is read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shards.errors import ShardError
from shards.format.files import sync_folder
from shards.format.frame_table import as_rows, to_npy
from shards.format.manifest import FORMAT_VERSION
from shards.format.side_files import scan_tar
from shards.format.tar_schema import load_array
from shards.format.tars import RECORD_NAME, iter_members, read_member


def upgrade_tar(path: Path) -> bool:
    """Replace a tar of version 1 by one of version 2. Returns whether there was anything to do.

    The new tar takes the name of the old one once it is complete. A process that has the old one
    open goes on reading it.

    Raises:
        ShardError: if the tar is damaged, or the new one cannot be written.
    """
    if scan_tar(path).record.get("format") != 1:
        return False
    partial = path.with_name(f".{path.name}.part")
    try:
        shutil.copyfile(path, partial)
        with open(partial, "r+b") as file:
            for offset, data in list(_changes(file, path)):
                file.seek(offset)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ShardError(f"cannot upgrade {path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return True


def _changes(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, new bytes) of every member of the tar that changes."""
    for member in iter_members(file):
        old = read_member(file, member) if _changes_with_version(member.name) else b""
        if member.name == RECORD_NAME:
            record = json.loads(old) | {"format": FORMAT_VERSION}
            new = json.dumps(record, sort_keys=True).encode()
        elif old:
            new = to_npy(as_rows(load_array(old)), len(old))
        else:
            continue
        if len(new) != len(old):
            raise ShardError(f"{path}: {member.name} cannot be upgraded; shard the videos again")
        yield member.offset, new


def _changes_with_version(name: str) -> bool:
    return name == RECORD_NAME or name.endswith(".frames.npy")
