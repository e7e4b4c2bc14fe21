"""Folders of JPEG frames: what a JPEG's header says, and the frames in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av

from shards.encode.probe import Probe, why
from shards.encode.strict_decoder import EPSILON, STRICT
from shards.errors import BadVideo

SOF0, DHT, SOS, APP1, EOI = 0xC0, 0xC4, 0xDA, 0xE1, b"\xff\xd9"
NO_FRAME_HEADER = {DHT, 0xC8, 0xCC}  # in the range of SOF markers without being one
MIRRORED = {2, 4, 5, 7}  # EXIF orientations that PyAV, which tells angles alone, cannot tell
LUMA_2X2 = ((2, 2), (1, 1), (1, 1))


@dataclass(frozen=True)
class JpegHeader:
    """The frame header of a JPEG: SOF marker, size in pixels, sampling factors of components;
    and its EXIF orientation, 1 for upright."""

    marker: int
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]
    has_tables: bool
    orientation: int = 1

    @property
    def baseline_420(self) -> bool:
        """Whether every JPEG decoder, those in hardware too, takes it as a frame of a shard."""
        return self.marker == SOF0 and self.sampling == LUMA_2X2 and self.has_tables


def read_header(data: bytes) -> JpegHeader:
    """Parse the segments of a JPEG up to its first scan. Raises BadVideo if it is none."""
    if data[:2] != b"\xff\xd8":
        raise BadVideo("corrupt", "not a JPEG")
    at, tables, orientation = 2, False, 1
    found: tuple[int, int, int, tuple[tuple[int, int], ...]] | None = None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        tables = tables or marker == DHT
        if marker == APP1 and segment[:6] == b"Exif\0\0":
            orientation = exif_orientation(segment[6:])
        if 0xC0 <= marker <= 0xCF and marker not in NO_FRAME_HEADER and len(segment) >= 6:
            height, width = (int.from_bytes(segment[a : a + 2], "big") for a in (1, 3))
            factors = tuple((b >> 4, b & 15) for b in segment[7 : 6 + 3 * segment[5] : 3])
            found = (marker, width, height, factors)
        if marker == SOS:
            break
        at += 2 + length
    if found is None:
        raise BadVideo("corrupt", "a JPEG without a frame header")
    return JpegHeader(*found, has_tables=tables, orientation=orientation)


def exif_orientation(tiff: bytes) -> int:
    """Orientation (1 to 8) of an EXIF block, 1 if it has none that makes sense."""
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(tiff[start : start + size], order)

    first = number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * min(number(first, 2), 512), 12):
        if number(entry, 2) == 0x112 and 1 <= number(entry + 8, 2) <= 8:
            return number(entry + 8, 2)
    return 1


def list_frames(folder: Path) -> list[Path]:
    """The JPEG files of a folder by their number. Raises BadVideo for none, or for a gap."""
    numbered = []
    for path in folder.iterdir():
        match = re.search(r"(\d+)\.jpe?g$", path.name, re.IGNORECASE)
        if match:
            numbered.append((int(match[1]), path))
    if not numbered:
        raise BadVideo("no_frames", "the folder holds no numbered JPEG")
    numbered.sort()
    for place, (number, _) in enumerate(numbered, numbered[0][0]):
        if number != place:
            raise BadVideo("incomplete", f"frame {place} of the folder is missing")
    return [path for _, path in numbered]


@dataclass
class JpegFolder:
    """A folder of JPEG frames as a video: the counterpart of `Decoder` for files."""

    folder: Path
    rate: Fraction
    fault: str = ""
    aspect: Fraction = Fraction(1)
    paths: list[Path] = field(default_factory=list)
    headers: list[JpegHeader] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.paths = list_frames(self.folder)
        for path in self.paths:
            try:
                self.headers.append(read_header(path.read_bytes()))
            except BadVideo as bad:
                self.fault = f"{path.name}: {bad.reason}"
                break

    @property
    def found(self) -> Probe:
        """The folder in the terms of a probed file."""
        times = tuple(i / float(self.rate) for i in range(len(self.headers)))
        length = len(times) / float(self.rate)
        return Probe("folder", "jpeg", times, self.rate, True, length, len(times), "")

    def pictures(self) -> Iterator[tuple[bytes, Any]]:
        """(bytes, decoded frame) of every good JPEG up to the first bad one."""
        for path, header in zip(self.paths, self.headers, strict=False):
            if header.orientation in MIRRORED:
                self.fault = f"{path.name}: mirrored by its EXIF orientation"
                return
            data = path.read_bytes()
            decoder: Any = av.CodecContext.create("mjpeg", "r")
            decoder.options = dict(STRICT)
            try:
                (frame,) = decoder.decode(av.Packet(data))
            except (av.FFmpegError, ValueError) as error:
                self.fault = f"{path.name}: {why(error)}"
                return
            if frame.is_corrupt or EOI not in data[-64:]:
                self.fault = f"{path.name}: the JPEG is cut off"
                return
            yield data, frame

    def frames(self, start: float | None, end: float | None) -> Iterator[tuple[float, Any]]:
        """(time in seconds, frame) for start <= time < end."""
        for number, (_, frame) in enumerate(self.pictures()):
            time = number / float(self.rate)
            late_enough = start is None or time >= start - EPSILON
            if late_enough and (end is None or time < end - EPSILON):
                yield time, frame

    def why_not_remux(self) -> str:
        """Why the JPEGs cannot be stored bit for bit; "" if they can."""
        for path, header in zip(self.paths, self.headers, strict=False):
            if not header.baseline_420:
                return f"{path.name} is no baseline 4:2:0 JPEG"
            if header.orientation != 1:
                return f"{path.name} is turned by its EXIF orientation"
            if (header.width, header.height) != (self.headers[0].width, self.headers[0].height):
                return f"{path.name} has another size"
        return ""
