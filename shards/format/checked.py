"""Remembers, beside a large set, that its frame table was checked.

The table of 72 million frames has 864 MB, which a network disk may need seconds to deliver. The
note is a convenience, not a guarantee: it comes with the set, and whoever forges it only gains that
a bad row is found when it is read, which the reader checks again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from shards.format.files import read_regular

NOTE = ".checked"
WORTHWHILE = 100 << 20  # bytes; a smaller table is checked faster than a disk answers twice


def is_remembered(table: Path, manifest: dict[str, Any]) -> bool:
    """Whether this table was checked under this manifest, and neither has changed since."""
    try:
        if table.stat().st_size < WORTHWHILE:
            return False
        return read_regular(table.with_name(NOTE), 100) == _note(table, manifest)
    except OSError:
        return False


def remember(table: Path, manifest: dict[str, Any]) -> None:
    """Note that a large table was checked; does nothing where its folder cannot be written."""
    with contextlib.suppress(OSError):
        if table.stat().st_size < WORTHWHILE:
            return
        note = _note(table, manifest)
        # A new file of its own: processes write at once, and a link must lead nowhere else.
        descriptor, partial = tempfile.mkstemp(prefix=NOTE, dir=table.parent)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # other users open the same set
            file.write(note)
        os.replace(partial, table.with_name(NOTE))


def _note(table: Path, manifest: dict[str, Any]) -> bytes:
    """A digest of the manifest, and of the size and the time of the table."""
    status = table.stat()
    content = json.dumps([manifest, status.st_size, status.st_mtime_ns], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest().encode()
