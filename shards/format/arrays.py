"""Memory-maps the arrays of an index, from .npy files that anybody may have written."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shards.format.files import open_regular

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class BadArray(ValueError):  # noqa: N818  (a verdict on a file)
    """A file that is not a .npy file of plain values; the text says what is wrong."""


def map_array(path: Path) -> np.ndarray:
    """Map a .npy file into memory, read-only; no value of it is read.

    `np.load` would wait at a FIFO, open an archive (.npz) under the name of an array, and raise
    errors of many types for odd headers.

    Raises:
        OSError: if the file cannot be read or is not a regular one.
        BadArray: if it is not a .npy file, holds Python objects, or has not the size of its shape.
    """
    with open_regular(path) as file:
        shape, fortran, dtype = parse_header(file, os.fstat(file.fileno()).st_size)
        order: Any = "F" if fortran else "C"
        mapped = np.memmap(file, dtype, "r", file.tell(), shape, order)
    # Still mapped, but without np.memmap, which makes every look-up slow.
    return mapped.view(np.ndarray)


def parse_header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype of a .npy file of `size` bytes.

    The file is then at the first value.

    Raises:
        BadArray: see `map_array`.
    """
    try:
        version = np.lib.format.read_magic(file)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy mends headers of Python 2 and warns of it
            shape, fortran, dtype = HEADERS[version](file)
    # The header is a Python literal: its parser answers odd ones with errors of many types.
    except Exception as error:
        raise BadArray(f"it has no valid .npy header ({type(error).__name__})") from None
    if dtype.hasobject:
        raise BadArray("it holds Python objects")
    if any(type(length) is not int or length < 0 for length in shape):
        raise BadArray("its shape is not valid")
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise BadArray(f"it has {size} bytes, but its header says {expected}")
    return shape, fortran, dtype
