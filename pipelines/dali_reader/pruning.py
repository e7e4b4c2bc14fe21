"""Pruning in DALI's arithmetic: of a whole mp4 only what the wanted frames need, without Python.

`gops.py` does the same in NumPy from the index of a split; here the table of the frames comes
with the video, as `key.frames.npy`. A set of h264, hevc or vp9 is stored as fragmented mp4, one
fragment per closed group of pictures, so a fragment ends where the last frame of its group does,
and the first one begins behind the boxes ftyp and moov. A damaged table or file gives a piece that
is too short, which its checksums then tell: nothing here raises for one video of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.dali_reader.sampling import dali_math
from pipelines.decode.graph import dali


@dataclass(frozen=True)
class Table:
    """The table of a video's frames in the graph: offsets and sizes (N,) int32, and N."""

    offsets: Any
    sizes: Any
    count: Any

    def ends(self, frames: Any) -> Any:
        """First byte behind each of these frames."""
        return picked(self.offsets, frames) + picked(self.sizes, frames)


def read_table(data: Any) -> Table:
    """The table in a .npy file (1-D uint8) of rows of offset, size and CRC-32."""
    fn, types, length = dali().fn, dali().types, _padded(data, 8, 2)
    start = _int(length[0]) + 256 * _int(length[1]) + 10
    rows = dali_math().max((_length(data) - start) // 12, 1)
    table = fn.reinterpret(_padded(data, start, rows * 12), dtype=types.INT32)
    table = fn.reshape(table, shape=[-1, 3])
    return Table(table[:, 0], table[:, 1], rows)


def unrepeated(frames: Any, count: int) -> tuple[Any, Any, Any]:
    """`containers.unrepeated` of `count` frame numbers: picks, their number, gather.

    picks (count,) are ascending, each once; behind the last one it stands again.
    """
    row, column = _row(frames, count), _column(frames, count)
    seen = _int(_total(_int(column == row) * _constant(np.tri(count, k=-1))) > 0)
    first = _row(1 - seen, count)
    gather = _total(_int(row < column) * first)
    place = _constant(np.arange(count)[:, None])
    picks = _total(_int(place == _row(gather, count)) * first * row)
    found = count - dali().fn.reductions.sum(seen, dtype=dali().types.INT32)
    last = dali().fn.reductions.max(frames)
    return picks + _int(_constant(np.arange(count)) >= found) * last, found, gather


def prune_groups(encoded: Any, table: Table, picks: Any, count: int, gop: int) -> tuple[Any, Any]:
    """The mp4 of the groups of `gop` pictures that hold `picks` (count,), and the picks in it."""
    fn, math, groups = dali().fn, dali_math(), picks // gop
    before = fn.cat(groups[0:1] - 1, groups[0 : count - 1], axis=0)
    new = _int(groups != before)
    kept = _total(_constant(np.tri(count)) * _row(new, count))
    header = _header(encoded)
    inner = table.ends(math.max(groups * gop - 1, 0))
    starts = inner * _int(groups > 0) + header * _int(groups == 0)
    stops = table.ends(math.min(groups * gop + gop - 1, table.count - 1))
    # A group that is there already adds an empty piece.
    pieces = _pieces(encoded, starts, starts + (stops - starts) * new, count)
    data = fn.cat(_piece(encoded, 0, header), *pieces, axis=0)
    return data, (kept - 1) * gop + picks % gop


def prune_frames(encoded: Any, table: Table, frames: Any, count: int) -> tuple[Any, Any]:
    """The bytes of these frames (count,), one behind the other, and how many each has."""
    starts, sizes = picked(table.offsets, frames), picked(table.sizes, frames)
    return dali().fn.cat(*_pieces(encoded, starts, starts + sizes, count), axis=0), sizes


def picked(values: Any, at: Any) -> Any:
    """values (N,)[at (F,)]."""
    fn = dali().fn
    rows = fn.reshape(values, shape=[-1, 1], layout="FC")
    return fn.reshape(fn.sequence_rearrange(rows, new_order=at), shape=[-1])


def _header(encoded: Any) -> Any:
    """Bytes before the first fragment, those of the boxes ftyp and moov."""
    types = _big_endian(encoded, 0)
    return types + _big_endian(encoded, types)


def _big_endian(encoded: Any, at: Any) -> Any:
    """The whole number in four bytes."""
    data = _int(_padded(encoded, at, 4))
    return _total(data * _constant(256 ** np.arange(3, -1, -1)), axis=0)


def _pieces(encoded: Any, starts: Any, stops: Any, count: int) -> list[Any]:
    return [_piece(encoded, starts[at], stops[at]) for at in range(count)]


def _piece(encoded: Any, start: Any, stop: Any) -> Any:
    size, clamp = _length(encoded), dali_math().clamp
    low = clamp(start, 0, size)
    return dali().fn.slice(encoded, start=low, end=clamp(stop, low, size), axes=[0])


def _padded(data: Any, start: Any, size: Any) -> Any:
    """Bytes from `start`, zeros where there are none."""
    return dali().fn.slice(data, start=start, shape=size, axes=[0], out_of_bounds_policy="pad")


def _length(data: Any) -> Any:
    return data.shape(dtype=dali().types.INT32)[0]


def _int(value: Any) -> Any:
    return dali().fn.cast(value, dtype=dali().types.INT32)


def _constant(values: np.ndarray) -> Any:
    return dali().types.Constant(values.astype(np.int32))


def _row(values: Any, count: int) -> Any:
    return dali().fn.reshape(values, shape=[1, count])


def _column(values: Any, count: int) -> Any:
    return dali().fn.reshape(values, shape=[count, 1])


def _total(values: Any, axis: int = 1) -> Any:
    return dali().fn.reductions.sum(values, axes=[axis], dtype=dali().types.INT32)
