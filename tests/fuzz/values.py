"""Seeded damage to bytes, JSON, arrays and tars, as attackers, disks and bugs make it."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

# What stands where something else is expected; OUTSIDE is replaced by an absolute path.
OUTSIDE = "/OUTSIDE/x.tar"
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3.5, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 2**80, 10**4000,
    float("nan"), float("inf"), "", "x", "x" * 100_000, "../../x.tar", OUTSIDE, "a\nb", "\x1b[2J",
    "\u202e", "\ud800", "[bold]", "\0", "1/0", "1e999", [], {}, [[]], ["x"], {"x": 1},
)  # fmt: skip
EDGES = (-(2**63), -(2**31), -1, 0, 1, 99, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1)


def odd_value(rng: np.random.Generator) -> Any:
    """Something of another type or size; now and then deeply nested."""
    if rng.random() < 0.03:
        value: Any = 1
        for _ in range(int(rng.choice([20, 150, 900]))):
            value = [value]
        return value
    return copy.deepcopy(ODD[int(rng.integers(len(ODD)))])


def flip(data: bytes, rng: np.random.Generator, low: int = 0, high: int | None = None) -> bytes:
    """Up to 8 bytes exchanged between `low` and `high`."""
    changed = bytearray(data)
    high = len(changed) if high is None else min(high, len(changed))
    for _ in range(int(rng.integers(1, 9)) if high > low else 0):
        changed[int(rng.integers(low, high))] = int(rng.integers(256))
    return bytes(changed)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The end, or a piece, taken away or doubled."""
    first, last = sorted(int(n) for n in rng.integers(len(data) + 1, size=2))
    return (data[:first], data[:first] + data[last:], data[:last] + data[first:])[rng.integers(3)]


def damage_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    return flip(data, rng) if rng.random() < 0.6 else cut(data, rng)


def damage_tree(value: Any, rng: np.random.Generator) -> Any:
    """A JSON-like value with one entry, at any depth, removed, doubled or exchanged."""
    changed = copy.deepcopy(value)
    place = changed
    while isinstance(place, (dict, list)) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[int(rng.integers(len(keys)))]
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.75:
            place = inner
            continue
        way = rng.random()
        if way < 0.15:
            del place[key]
        elif way < 0.25 and isinstance(place, list):
            place.append(copy.deepcopy(inner))
        else:
            place[key] = odd_value(rng)
        return changed
    return odd_value(rng)


def damage_json(data: bytes, rng: np.random.Generator, outside: str) -> bytes:
    if rng.random() < 0.15:
        return damage_bytes(data, rng)
    if rng.random() < 0.03:
        depth = int(rng.choice([100, 100_000]))
        return b'{"a":' * depth + b"1" + b"}" * depth
    changed = json.loads(data)
    for _ in range(int(rng.integers(1, 3))):
        changed = damage_tree(changed, rng)
    return json.dumps(changed).replace(OUTSIDE, outside).encode()


def damage_npy(data: bytes, rng: np.random.Generator) -> bytes:
    """Values, header, shape, type or container of a .npy file changed."""
    way = rng.random()
    if way < 0.2:
        return flip(data, rng, 0, 128)
    if way < 0.3:
        return cut(data, rng)
    array = np.load(io.BytesIO(data), allow_pickle=False).copy()
    if way < 0.75 and array.size:
        _set_edges(array, rng)
        return npy(array)
    others = (
        array[:0], array[:-1], np.concatenate([array, array[:1]]), array[None], np.array(5),
        np.zeros(3), np.array(["x"]), array[::-1].copy(), np.zeros((0, 3), array.dtype),
    )  # fmt: skip
    if way < 0.95:
        return npy(others[int(rng.integers(len(others)))])
    buffer = io.BytesIO()
    if way < 0.975:
        np.savez(buffer, x=array)
    else:
        np.save(buffer, np.array([{"a": 1}, None], object), allow_pickle=True)
    return buffer.getvalue()


def _set_edges(array: np.ndarray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        names = array.dtype.names
        column = array[str(rng.choice(names))] if names else array
        row = rng.integers(len(column)) if rng.random() < 0.8 else slice(None)
        if column.dtype.kind in "iu":
            info = np.iinfo(column.dtype)
            near = int(column.flat[0]) + int(rng.integers(-300, 300))
            value = int(rng.choice(EDGES)) if rng.random() < 0.6 else near
            column[row] = min(max(value, info.min), info.max)
        elif column.dtype.kind == "f":
            column[row] = rng.choice([0.0, -1.0, np.nan, np.inf, 1e30])
        else:
            column[row] = (b"", b"a\x1b[2J", b"a b", b"../x", b"\xff", b"a\0b")[rng.integers(6)]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def damage_tar(path: Path, rng: np.random.Generator, outside: str) -> None:
    """Headers (with a right checksum or not), small members or any bytes of a tar changed."""
    data, way = path.read_bytes(), rng.random()
    if way < 0.2:
        path.write_bytes(damage_bytes(data, rng))
        return
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    member = members[int(rng.integers(len(members)))]
    start = member.offset_data
    if way < 0.5:
        header = bytearray(data[start - 512 : start])
        _damage_header(header, rng, outside)
        path.write_bytes(data[: start - 512] + bytes(header) + data[start:])
        return
    small = [m for m in members if not m.name.endswith(".mp4")]
    member = small[int(rng.integers(len(small)))]
    body = data[member.offset_data : member.offset_data + member.size]
    if member.name.endswith(".npy"):
        body = damage_npy(body, rng)
    elif member.name.endswith(".cls"):
        body = damage_bytes(body, rng)
    else:
        body = damage_json(body, rng, outside)
    end = member.offset_data + member.size + -member.size % 512
    info = tarfile.TarInfo(member.name)
    info.size, info.type = len(body), member.type
    padded = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    path.write_bytes(data[: member.offset_data - 512] + padded + data[end:])


def _damage_header(header: bytearray, rng: np.random.Generator, outside: str) -> None:
    way = rng.integers(5)
    if way == 0:
        header[:] = flip(bytes(header), rng)
    elif way == 1:  # any type: link, device, folder, pax, GNU's long names and sparse files
        header[156:157] = bytes([int(rng.choice(list(b"0123456789xgLKSVMNDAZ\0")))])
    elif way == 2:
        size = int(rng.choice([-1, -512, -(2**40), 0, 1, 2**31, 2**40, 2**62]))
        header[124:136] = b"\x80" + b"\0" * 11 if size == 0 else _base256(size)
    elif way == 3:
        names = (b"../../x.mp4", outside.encode()[:99], b"a\x1b[2J.mp4", b"\xff.json", b".", b"")
        header[:100] = names[int(rng.integers(len(names)))].ljust(100, b"\0")
    else:
        header[124:136] = (b"7" * 11 + b" ", b"-0000000001 ", b"9" * 12, b" " * 12)[rng.integers(4)]
    if rng.random() < 0.8:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)


def _base256(number: int) -> bytes:
    return (b"\xff" if number < 0 else b"\x80") + number.to_bytes(12, "big", signed=True)[1:]
