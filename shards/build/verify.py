"""Read a whole split again and name every fault: hashes, tables, checksums, pictures, index."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from shards.build.worker import sha256
from shards.encode import mp4
from shards.encode.jpeg_folder import read_header
from shards.encode.probe import why
from shards.encode.strict_decoder import STRICT
from shards.errors import BadVideo, ShardError, ShardUsageError
from shards.format.index import Split, open_split
from shards.format.side_files import Scan, idx_text, scan_tar
from shards.format.tars import Window


def verify_split(
    folder: Path, workers: int, on_tar: Callable[[int], None] = lambda samples: None
) -> list[str]:
    """Every fault of the split in `folder`, in words; [] if it is sound.

    `on_tar` is told the samples of each tar once it is read. Raises ShardError where there is no
    split to read.
    """
    if workers < 1:
        raise ShardUsageError(f"verify with {workers} workers: give 1 or more")
    split = open_split(folder.parent, folder.name)
    with ThreadPoolExecutor(workers) as pool:
        faults: list[str] = []
        for number, found in enumerate(
            pool.map(lambda n: _verify_tar(split, n), range(len(split.tars)))
        ):
            faults += found
            on_tar(split.manifest["tars"][number]["samples"])
    return faults


def _verify_tar(split: Split, number: int) -> list[str]:
    return list(_tar_faults(split, number, split.manifest["tars"][number]))


def _tar_faults(split: Split, number: int, entry: Mapping[str, Any]) -> Iterator[str]:
    path = split.tars[number]
    try:
        sound = path.stat().st_size == entry["size"] and sha256(path) == entry["sha256"]
        scan = scan_tar(path)
    except ShardError as error:
        yield str(error)
        return
    except OSError as error:
        yield f"{path} cannot be read: {error.strerror}"
        return
    faults = list(_content_faults(split, number, scan))
    yield from faults
    if not sound and not faults:
        yield f"{path}: SHA-256 or size is not the manifest's, though every sample reads well"


def _content_faults(split: Split, number: int, scan: Scan) -> Iterator[str]:
    path = split.tars[number]
    with open(path, "rb") as file:
        for about in scan.samples:
            for fault in sample_faults(file, about):
                yield f"{path}, sample {about['key']}: {fault}"
    rows = np.flatnonzero(split.samples["tar"] == number)
    if [split.key(int(i)) for i in rows] != [about["key"] for about in scan.samples]:
        yield f"{path}: the index lists other samples: reindex"
        return
    for i, about in zip(rows, scan.samples, strict=True):
        if not _row_agrees(split, int(i), about):
            yield f"{path}, sample {about['key']}: the index says otherwise than the tar: reindex"
    idx = path.with_suffix(".idx")
    if not idx.is_file() or idx.read_bytes() != idx_text(scan.listing).encode():
        yield f"{idx} is missing or wrong: reindex"


def _row_agrees(split: Split, i: int, about: Mapping[str, Any]) -> bool:
    row, member = split.samples[i], about["member"]
    frames = split.frames[row["first_frame"] : row["first_frame"] + row["num_frames"]]
    return (
        (row["offset"], row["size"]) == (member.offset, member.size)
        and (row["width"], row["height"]) == (about["width"], about["height"])
        and list(split.labels(i)) == about["labels"]
        and np.array_equal(frames, about["table"])
    )


def sample_faults(file: BinaryIO, about: Mapping[str, Any]) -> Iterator[str]:
    """Faults of one sample: its container, its table, every checksum and every picture."""
    member, table = about["member"], about["table"]
    file.seek(member.offset)
    data = file.read(member.size)
    bad = [
        t
        for t, row in enumerate(table)
        if zlib.crc32(data[row["offset"] : row["offset"] + row["size"]]) != row["crc32"]
    ]
    if bad:
        yield f"the bytes of frame {bad[0]} are not as written ({len(bad)} damaged frames)"
        return
    try:
        same = np.array_equal(mp4.frame_table(Window(file, member.offset, member.size)), table)
    except (av.FFmpegError, ValueError) as error:
        yield f"the mp4 cannot be opened ({why(error)})"
        return
    if not same:
        yield "the mp4's own tables are not those of frames.npy"
        return
    yield from _picture_faults(data, about)


def _picture_faults(data: bytes, about: Mapping[str, Any]) -> Iterator[str]:
    table = about["table"]
    if about["codec"] == "mjpeg":
        for t, row in enumerate(table):
            fault = _jpeg_fault(data[row["offset"] : row["offset"] + row["size"]], about)
            if fault:
                yield f"frame {t}: {fault}"
        return
    container: Any = av.open(io.BytesIO(data), format="mp4")
    with container:
        stream = container.streams.video[0]
        stream.codec_context.options = dict(STRICT)
        try:
            count = sum(not frame.is_corrupt for frame in container.decode(stream))
        except (av.FFmpegError, ValueError) as error:
            yield f"decoding fails ({why(error)})"
            return
    if count != len(table):
        yield f"{count} of {len(table)} frames decode"


def _jpeg_fault(data: bytes, about: Mapping[str, Any]) -> str:
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.options = dict(STRICT)
    try:
        header = read_header(data)
        (frame,) = decoder.decode(av.Packet(data))
    except (av.FFmpegError, ValueError, BadVideo) as error:
        return f"does not decode ({why(error)})"
    if not header.baseline_420 or (frame.width, frame.height) != (about["width"], about["height"]):
        return "no baseline 4:2:0 JPEG of the sample's size"
    return ""
