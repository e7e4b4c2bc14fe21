"""The frame table of a sample, `KEY.frames.npy`: a row for each frame of its mp4.

Version 1 stores rows of a structured type, version 2 a plain uint32 array (frames, 3), which Arrow
and other tools without structured types can read. The bytes of the rows are the same.
"""

from __future__ import annotations

import io

import numpy as np

from shards.format.index import FRAME_DTYPE

COLUMN = np.dtype("<u4")
COLUMNS = 3
MAX_MP4 = 1 << 32  # bytes; a larger mp4 has offsets beyond uint32


def to_npy(table: np.ndarray, length: int = 0) -> bytes:
    """Return the content of a .npy file of version 2 with these rows, FRAME_DTYPE (N,).

    length: bytes of the file at least; its header is filled up with spaces.
    """
    buffer = io.BytesIO()
    rows = np.ascontiguousarray(table).view(COLUMN).reshape(-1, COLUMNS)
    np.save(buffer, rows, allow_pickle=False)
    data = buffer.getvalue()
    spaces = max(length - len(data), 0)
    end = 10 + int.from_bytes(data[8:10], "little")  # of the header, a line of text
    header = (end - 10 + spaces).to_bytes(2, "little") + data[10 : end - 1] + b" " * spaces + b"\n"
    return data[:8] + header + data[end:]


def as_rows(array: np.ndarray) -> np.ndarray:
    """Return the rows of a loaded frame table of version 1 or 2, as FRAME_DTYPE (N,).

    An array of another type or shape is returned as it is, for the reader to refuse.
    """
    if array.dtype != COLUMN or array.ndim != 2 or array.shape[1] != COLUMNS:
        return array
    return np.ascontiguousarray(array).view(FRAME_DTYPE).reshape(-1)
