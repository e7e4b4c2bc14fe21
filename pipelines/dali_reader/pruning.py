"""Prunes a stored mp4 to the bytes that the wanted frames need, inside the DALI graph.

`gops.py` does the same in NumPy from the index of a split; here the frame table comes with the
video, as `key.frames.npy`. Sets of h264, hevc or vp9 are stored as fragmented mp4 with one fragment
per closed group of pictures: a fragment ends with the last frame of its group, and the first one
begins after the boxes ftyp and moov. A damaged table or file gives too few bytes, which the
checksums reveal later; no operation here fails for a single video of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.dali_reader.sampling import dali_math
from pipelines.decode.graph import dali


@dataclass(frozen=True)
class Table:
    """The frame table of a video in the graph: offsets and sizes (N,) int32, and the count N."""

    offsets: Any
    sizes: Any
    count: Any

    def ends(self, frames: Any) -> Any:
        """Offset of the end of each of these frames."""
        return take(self.offsets, frames) + take(self.sizes, frames)


def read_table(data: Any) -> Table:
    """Parse a .npy file (1-D uint8) whose rows are offset, size and CRC-32."""
    fn, types, length = dali().fn, dali().types, _padded(data, 8, 2)
    start = _int(length[0]) + 256 * _int(length[1]) + 10
    rows = dali_math().max((_length(data) - start) // 12, 1)
    table = fn.reinterpret(_padded(data, start, rows * 12), dtype=types.INT32)
    table = fn.reshape(table, shape=[-1, 3])
    return Table(table[:, 0], table[:, 1], rows)


def unrepeated(frames: Any, count: int) -> tuple[Any, Any, Any]:
    """`gops.unrepeated` in the graph, of `count` frame numbers: picks, number of picks, gather.

    picks (count,) are ascending and each once; the last one is repeated to fill the array.
    """
    row, column = _row(frames, count), _column(frames, count)
    repeated = _int(_sum(_int(column == row) * _constant(np.tri(count, k=-1))) > 0)
    first = _row(1 - repeated, count)
    gather = _sum(_int(row < column) * first)
    position = _constant(np.arange(count)[:, None])
    picks = _sum(_int(position == _row(gather, count)) * first * row)
    unique = count - dali().fn.reductions.sum(repeated, dtype=dali().types.INT32)
    last = dali().fn.reductions.max(frames)
    return picks + _int(_constant(np.arange(count)) >= unique) * last, unique, gather


def prune_groups(encoded: Any, table: Table, picks: Any, count: int, gop: int) -> tuple[Any, Any]:
    """The mp4 with the groups of `gop` pictures that hold `picks` (count,), and the picks in it."""
    fn, math, groups = dali().fn, dali_math(), picks // gop
    previous = fn.cat(groups[0:1] - 1, groups[0 : count - 1], axis=0)
    new = _int(groups != previous)
    group_index = _sum(_constant(np.tri(count)) * _row(new, count))
    header = _header(encoded)
    previous_end = table.ends(math.max(groups * gop - 1, 0))
    starts = previous_end * _int(groups > 0) + header * _int(groups == 0)
    stops = table.ends(math.min(groups * gop + gop - 1, table.count - 1))
    # The piece of a repeated group is empty.
    pieces = _pieces(encoded, starts, starts + (stops - starts) * new, count)
    data = fn.cat(_piece(encoded, 0, header), *pieces, axis=0)
    return data, (group_index - 1) * gop + picks % gop


def prune_frames(encoded: Any, table: Table, frames: Any, count: int) -> tuple[Any, Any]:
    """The bytes of these frames (count,), concatenated, and the size of each."""
    starts, sizes = take(table.offsets, frames), take(table.sizes, frames)
    return dali().fn.cat(*_pieces(encoded, starts, starts + sizes, count), axis=0), sizes


def take(values: Any, indices: Any) -> Any:
    """values (N,)[indices (F,)]."""
    fn = dali().fn
    rows = fn.reshape(values, shape=[-1, 1], layout="FC")
    return fn.reshape(fn.sequence_rearrange(rows, new_order=indices), shape=[-1])


def _header(encoded: Any) -> Any:
    """Number of bytes before the first fragment, the size of the boxes ftyp and moov."""
    ftyp = _big_endian(encoded, 0)
    return ftyp + _big_endian(encoded, ftyp)


def _big_endian(encoded: Any, offset: Any) -> Any:
    """The big-endian integer in the four bytes at `offset`."""
    data = _int(_padded(encoded, offset, 4))
    return _sum(data * _constant(256 ** np.arange(3, -1, -1)), axis=0)


def _pieces(encoded: Any, starts: Any, stops: Any, count: int) -> list[Any]:
    return [_piece(encoded, starts[i], stops[i]) for i in range(count)]


def _piece(encoded: Any, start: Any, stop: Any) -> Any:
    size, clamp = _length(encoded), dali_math().clamp
    low = clamp(start, 0, size)
    return dali().fn.slice(encoded, start=low, end=clamp(stop, low, size), axes=[0])


def _padded(data: Any, start: Any, size: Any) -> Any:
    """`size` bytes from `start`, with zeros outside the data."""
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


def _sum(values: Any, axis: int = 1) -> Any:
    return dali().fn.reductions.sum(values, axes=[axis], dtype=dali().types.INT32)
