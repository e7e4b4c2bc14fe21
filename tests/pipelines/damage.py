"""Ways to damage the stored frames of a video."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from shards import Split

Damage = Callable[[bytes], bytes]


def overwrite(split: Split, sample: int, damage: Damage, *, fix_crc: bool = False) -> None:
    """Damage every frame of a sample; fix_crc: keep the checksums of the index right."""
    row = split.samples[sample]
    path = split.root / split.name / "frames.npy"
    frames = np.load(path)
    with open(split.tar_path(sample), "r+b") as file:
        for entry in frames[row["first_frame"] : row["first_frame"] + row["num_frames"]]:
            start, size = int(row["offset"]) + int(entry["offset"]), int(entry["size"])
            file.seek(start)
            data = damage(file.read(size))
            assert len(data) == size
            file.seek(start)
            file.write(data)
            entry["crc32"] = zlib.crc32(data)
    if fix_crc:
        np.save(path, frames)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def zeroed(data: bytes) -> bytes:
    return (bytes(40) + data[40:])[: len(data)]


def other_size(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xc0") + 5, bytes([0, 40, 0, 40]))


def four_components(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xc0") + 9, b"\x09")


def without_end_of_header(data: bytes) -> bytes:
    return patched(data, 4, b"\xff\xff")


def bad_huffman_table(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xc4") + 5, b"\xff" * 16)


def bad_quantiser_table(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xdb") + 4, b"\x77")


def bad_scan(data: bytes) -> bytes:
    return patched(data, data.find(b"\xff\xda") + 4, b"\x09")
