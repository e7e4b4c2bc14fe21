"""Files of the index that are not the arrays they should be: one line, and no wait."""

from __future__ import annotations

import os

import numpy as np
import pytest

from shards import ShardError, open_split
from shards.format.arrays import BadArray, map_array
from shards.format.index import ARRAYS


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode()


def described(shape: str, descr: str = "'<i4'", fortran: str = "False") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n")


ODD = {
    "a scalar": described("()") + bytes(4),
    "two dimensions": described("(2, 3)") + bytes(24),
    "no dimension is negative": described("(-1,)") + bytes(4),
    "huge": described("(4611686018427387905,)") + bytes(4),
    "more than 64 bits": described(f"({1 << 70},)") + bytes(4),
    "not a number": described("(True,)") + bytes(4),
    "a shape that is text": described("'ab'") + bytes(4),
    "of Python 2": described("(3L,)") + bytes(12),
    "objects": described("(1,)", "'|O'") + b"\x80\x04K*.",
    "an unknown type": described("(1,)", "'<q9'") + bytes(9),
    "a type of many parts": described("(1,)", "[" * 90 + "]" * 90) + bytes(9),
    "nested": header("(" * 4000 + ")" * 4000),
    "a long header": header("{" + " " * 60_000 + "}"),
    "code": header("__import__('os').system('true')"),
    "too short": described("(100,)") + bytes(4),
    "too long": described("(1,)") + bytes(400),
    "version 3": header("{}", b"\x03\x00"),
    "an archive": b"PK\x03\x04" + bytes(200),
    "a pickle": b"\x80\x04]\x94.",
    "nothing": b"",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_every_array_is_checked_when_a_split_is_opened(copy, name):
    path = copy / f"{name}.npy"
    for kind, content in ODD.items():
        path.write_bytes(content)
        with pytest.raises(ShardError, match=r"run tools/shard\.py reindex") as caught:
            open_split(copy.parent, "train")
        assert str(caught.value).startswith(str(path)), kind
        assert str(caught.value).isprintable()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ShardError, match="not a regular file"):
        open_split(copy.parent, "train")


def test_another_number_of_rows_is_refused(copy):
    for name in ("samples", "keys", "frames"):
        whole = np.load(copy / f"{name}.npy")
        np.save(copy / f"{name}.npy", whole[:-1])
        with pytest.raises(ShardError, match=f"{name}.npy does not match the manifest"):
            open_split(copy.parent, "train")
        np.save(copy / f"{name}.npy", whole)
    assert len(open_split(copy.parent, "train")) == 3


def test_an_archive_under_the_name_of_an_array(copy):
    with open(copy / "samples.npy", "wb") as file:
        np.savez(file, samples=np.zeros(3))
    with pytest.raises(ShardError, match=r"no valid \.npy header"):
        open_split(copy.parent, "train")


@pytest.mark.parametrize("array", [np.arange(6), np.zeros((0,), "<u4"), np.arange(6.0)[::-1]])
def test_plain_arrays_are_mapped(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    mapped = map_array(tmp_path / "a.npy")
    assert (mapped.dtype, mapped.tolist()) == (array.dtype, array.tolist())
    with pytest.raises(ValueError, match="read-only"):
        mapped[:] = 1


def test_a_type_with_objects_inside_is_not_mapped(tmp_path):
    (tmp_path / "a.npy").write_bytes(described("(1,)", "[('a', '|O')]") + bytes(8))
    with pytest.raises(BadArray, match="Python objects"):
        map_array(tmp_path / "a.npy")
