"""Checks a whole split: hashes, frame tables, checksums, index, and that every frame decodes."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from dsanet.errors import require
from shards.encode import mp4
from shards.encode.container import describe_error
from shards.encode.jpeg_folder import read_jpeg_header
from shards.encode.strict_decoder import STRICT_OPTIONS
from shards.errors import BadVideo, ShardError, ShardUsageError
from shards.format.files import open_regular, read_regular, sha256
from shards.format.index import MAX_IDX, Split, open_split
from shards.format.side_files import TarContents, idx_text, scan_tar
from shards.format.tars import Window


def verify_split(
    folder: Path, workers: int, on_tar: Callable[[int], None] = lambda samples: None
) -> list[str]:
    """Return a sentence for every fault of the split in `folder`; [] if it is valid.

    on_tar: called with the number of samples of each tar once that tar is checked.

    Raises:
        ShardError: if there is no split to read.
    """
    require(workers >= 1, "workers", "be at least 1", workers, ShardUsageError)
    split = open_split(folder.parent, folder.name)
    with ThreadPoolExecutor(workers) as pool:
        faults: list[str] = []
        results = pool.map(lambda n: list(_tar_faults(split, n)), range(len(split.tars)))
        for number, tar_faults in enumerate(results):
            faults += tar_faults
            on_tar(split.manifest["tars"][number]["samples"])
    return faults


def _tar_faults(split: Split, number: int) -> Iterator[str]:
    path, entry = split.tars[number], split.manifest["tars"][number]
    try:
        as_written = path.stat().st_size == entry["size"] and sha256(path) == entry["sha256"]
        contents = scan_tar(path)
    except ShardError as error:
        yield str(error)
        return
    except OSError as error:
        yield f"{path} cannot be read: {error.strerror}"
        return
    faults = list(_content_faults(split, number, contents))
    yield from faults
    if not as_written and not faults:
        yield f"{path}: SHA-256 or size differs from the manifest, but every sample is valid"


def _content_faults(split: Split, number: int, contents: TarContents) -> Iterator[str]:
    path = split.tars[number]
    with open_regular(path) as file:
        for metadata in contents.samples:
            for fault in sample_faults(file, metadata):
                yield f"{path}, sample {metadata['key']}: {fault}"
    rows = np.flatnonzero(split.samples["tar"] == number)
    if [split.key(int(i)) for i in rows] != [metadata["key"] for metadata in contents.samples]:
        yield f"{path}: the index lists other samples; reindex"
        return
    for i, metadata in zip(rows, contents.samples, strict=True):
        if not _row_matches(split, int(i), metadata):
            yield f"{path}, sample {metadata['key']}: the index differs from the tar; reindex"
    idx = path.with_suffix(".idx")
    if not idx.is_file() or read_regular(idx, MAX_IDX) != idx_text(contents.groups).encode():
        yield f"{idx} is missing or wrong; reindex"


def _row_matches(split: Split, i: int, metadata: Mapping[str, Any]) -> bool:
    row, member = split.samples[i], metadata["member"]
    frames = split.frames[row["first_frame"] : row["first_frame"] + row["num_frames"]]
    return (
        (row["offset"], row["size"]) == (member.offset, member.size)
        and (row["width"], row["height"]) == (metadata["width"], metadata["height"])
        and list(split.labels(i)) == metadata["labels"]
        and np.array_equal(frames, metadata["table"])
    )


def sample_faults(file: BinaryIO, metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of one sample: of its mp4, frame table, checksums and frames."""
    member, table = metadata["member"], metadata["table"]
    file.seek(member.offset)
    data = file.read(member.size)
    damaged = [
        t
        for t, row in enumerate(table)
        if zlib.crc32(data[row["offset"] : row["offset"] + row["size"]]) != row["crc32"]
    ]
    if damaged:
        yield f"the checksum of frame {damaged[0]} is wrong ({len(damaged)} damaged frames)"
        return
    try:
        table_matches = np.array_equal(
            mp4.frame_table(Window(file, member.offset, member.size)), table
        )
    except (av.FFmpegError, ValueError, BadVideo) as error:
        yield f"the mp4 cannot be opened ({describe_error(error)})"
        return
    if not table_matches:
        yield "the tables of the mp4 differ from frames.npy"
        return
    yield from _frame_faults(data, metadata)


def _frame_faults(data: bytes, metadata: Mapping[str, Any]) -> Iterator[str]:
    table = metadata["table"]
    if metadata["codec"] == "mjpeg":
        for t, row in enumerate(table):
            fault = _jpeg_fault(data[row["offset"] : row["offset"] + row["size"]], metadata)
            if fault:
                yield f"frame {t}: {fault}"
        return
    container: Any = av.open(io.BytesIO(data), format="mp4")
    with container:
        stream = container.streams.video[0]
        stream.codec_context.options = dict(STRICT_OPTIONS)
        try:
            count = sum(not frame.is_corrupt for frame in container.decode(stream))
        except (av.FFmpegError, ValueError) as error:
            yield f"the mp4 does not decode ({describe_error(error)})"
            return
    if count != len(table):
        yield f"only {count} of {len(table)} frames decode"


def _jpeg_fault(data: bytes, metadata: Mapping[str, Any]) -> str:
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.options = dict(STRICT_OPTIONS)
    try:
        header = read_jpeg_header(data)
        (frame,) = decoder.decode(av.Packet(data))
    except (av.FFmpegError, ValueError, BadVideo) as error:
        return f"does not decode ({describe_error(error)})"
    if not header.is_baseline_420 or (frame.width, frame.height) != (
        metadata["width"],
        metadata["height"],
    ):
        return "is not a baseline 4:2:0 JPEG of the sample's size"
    return ""
