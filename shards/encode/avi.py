"""Counts the frames of an AVI from its chunks, empty ones included."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

# Lists that hold chunks: two levels of data, and the RIFF parts of files beyond 1 GiB.
CONTAINERS = {b"RIFF", b"LIST"}
CONTAINER_KINDS = {b"AVI ", b"AVIX", b"movi", b"rec "}
FRAME_KINDS = {b"dc", b"db"}  # a compressed or uncompressed frame; "ix" and the like are no frames
INDEX_ENTRY = 16  # bytes of an entry of idx1: chunk id, flags, offset, size


def count_frames(path: Path, stream: int) -> int | None:
    """Return how many frames, dropped ones included, an AVI has; None if bytes are missing.

    A recorder that drops a frame writes an empty chunk, or only an index entry of size 0: it lasts
    as long as a frame, and players show the previous frame again.

    stream: number of the video stream in the file.
    """
    chunks = entries = 0
    prefix = b"%02d" % stream
    with open(path, "rb") as file:
        end_of_file = file.seek(0, 2)
        position = 0
        while position + 8 <= end_of_file:
            name, size = _read_header(file, position)
            if name in CONTAINERS and file.read(4) in CONTAINER_KINDS:
                if position + 8 + size > end_of_file:
                    return None
                position += 12
                continue
            if not name.isalnum():
                break  # padding or foreign data after the last chunk
            chunks += name[:2] == prefix and name[2:] in FRAME_KINDS
            if name == b"idx1":
                entries = _count_index_entries(file, position + 8, size, prefix)
            position += 8 + size + size % 2
    return None if position > end_of_file + 1 else max(chunks, entries)


def _read_header(file: BinaryIO, position: int) -> tuple[bytes, int]:
    file.seek(position)
    head = file.read(8)
    return head[:4], int.from_bytes(head[4:], "little")


def _count_index_entries(file: BinaryIO, start: int, size: int, prefix: bytes) -> int:
    file.seek(start)
    index = file.read(size)
    names = (index[at : at + 4] for at in range(0, len(index) - INDEX_ENTRY + 1, INDEX_ENTRY))
    return sum(name[:2] == prefix and name[2:] in FRAME_KINDS for name in names)
