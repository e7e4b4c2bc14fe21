"""Reads folders of JPEG frames as videos, and the headers of the JPEGs."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av

from shards.encode.container import describe_error
from shards.encode.probe import ProbeResult
from shards.encode.strict_decoder import STRICT_OPTIONS, TIME_TOLERANCE
from shards.errors import BadVideo
from shards.format.files import read_regular

SOF0, DHT, SOS, APP1, END_OF_IMAGE = 0xC0, 0xC4, 0xDA, 0xE1, b"\xff\xd9"
NOT_SOF = {DHT, 0xC8, 0xCC}  # markers from 0xC0 to 0xCF that begin no frame header
MIRRORED = {2, 4, 5, 7}  # EXIF orientations that PyAV, which reports an angle only, loses
IMAGES, FLOW = "img_", re.compile(r"flow_[xy]_")  # names of denseflow, which mmaction2 uses
SAMPLING_420 = ((2, 2), (1, 1), (1, 1))
MAX_JPEG = 256 << 20  # bytes


@dataclass(frozen=True)
class JpegHeader:
    """The header of a JPEG.

    Attributes:
        marker: the SOF marker, which says how the image is coded.
        width, height: in pixels.
        sampling: horizontal and vertical sampling factor of each component.
        has_tables: whether the header contains Huffman tables.
        orientation: the EXIF orientation, 1 for upright.
    """

    marker: int
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]
    has_tables: bool
    orientation: int = 1

    @property
    def is_baseline_420(self) -> bool:
        """Whether every JPEG decoder, hardware decoders too, can decode it."""
        return self.marker == SOF0 and self.sampling == SAMPLING_420 and self.has_tables


# Not shared with the loader's check of headers (pipelines/read/jpeg_header.py): that one looks only
# for what makes DALI crash, for every frame that is read, and is several times as fast as this
# parser, which also collects EXIF, Huffman tables and sampling factors.
def read_jpeg_header(data: bytes) -> JpegHeader:
    """Parse the segments of a JPEG up to its first scan. Raises BadVideo if it is not a JPEG."""
    if data[:2] != b"\xff\xd8":
        raise BadVideo("corrupt", "not a JPEG")
    position, has_tables, orientation = 2, False, 1
    frame: tuple[int, int, int, tuple[tuple[int, int], ...]] | None = None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + length]
        has_tables = has_tables or marker == DHT
        if marker == APP1 and segment[:6] == b"Exif\0\0":
            orientation = read_exif_orientation(segment[6:])
        if 0xC0 <= marker <= 0xCF and marker not in NOT_SOF and len(segment) >= 6:
            height, width = (int.from_bytes(segment[a : a + 2], "big") for a in (1, 3))
            factors = tuple((b >> 4, b & 15) for b in segment[7 : 6 + 3 * segment[5] : 3])
            frame = (marker, width, height, factors)
        if marker == SOS:
            break
        position += 2 + length
    if frame is None:
        raise BadVideo("corrupt", "a JPEG without a frame header")
    return JpegHeader(*frame, has_tables=has_tables, orientation=orientation)


def read_exif_orientation(tiff: bytes) -> int:
    """Return the orientation (1 to 8) of an EXIF block, 1 if it has no valid one."""
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"

    def read_number(start: int, size: int) -> int:
        return int.from_bytes(tiff[start : start + size], order)

    first = read_number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * min(read_number(first, 2), 512), 12):
        tag, value = read_number(entry, 2), read_number(entry + 8, 2)
        if tag == 0x112 and 1 <= value <= 8:
            return value
    return 1


def list_frames(folder: Path) -> list[Path]:
    """Return the JPEG files of a folder in the order of their numbers.

    Where the folder also has the optical flow that denseflow writes (`flow_x_00001.jpg`), the
    files named `img_` are the frames.

    Raises BadVideo if there is none, or if a number is missing.
    """
    by_prefix: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.iterdir():
        match = re.fullmatch(r"(.*?)(\d+)\.jpe?g", path.name, re.IGNORECASE | re.DOTALL)
        if match:
            by_prefix.setdefault(match[1], []).append((int(match[2]), path))
    if not by_prefix:
        raise BadVideo("no_frames", "the folder holds no numbered JPEG")
    is_flow = IMAGES in by_prefix and all(p == IMAGES or FLOW.match(p) for p in by_prefix)
    numbered = by_prefix[IMAGES] if is_flow else [f for files in by_prefix.values() for f in files]
    numbered.sort()
    for expected, (number, _) in enumerate(numbered, numbered[0][0]):
        if number != expected:
            raise BadVideo("incomplete", f"frame {expected} of the folder is missing")
    return [path for _, path in numbered]


def read_frame(path: Path) -> bytes:
    """Return the content of a JPEG file of a folder.

    Raises BadVideo for what is not a regular file, or is larger than any JPEG; OSError where the
    disk fails.
    """
    try:
        return read_regular(path, MAX_JPEG)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):
            raise
        raise BadVideo("not_a_file", str(error.strerror)) from None


@dataclass
class JpegFolder:
    """A folder of JPEG frames as a video; `StrictDecoder` does the same for a file.

    part: first frame, from 0, and number of frames; () for all.
    fault: why the frames end early, "" if they do not.
    """

    folder: Path
    rate: Fraction
    part: tuple[int, ...] = ()
    fault: str = ""
    aspect: Fraction = Fraction(1)
    paths: list[Path] = field(default_factory=list)
    headers: list[JpegHeader] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.paths = self._choose(list_frames(self.folder))
        for path in self.paths:
            try:
                self.headers.append(read_jpeg_header(read_frame(path)))
            except BadVideo as bad:
                self.fault = f"{path.name}: {bad.reason}"
                break

    def _choose(self, paths: list[Path]) -> list[Path]:
        if not self.part:
            return paths
        first, count = self.part
        if first + count > len(paths):
            raise BadVideo(
                "incomplete",
                f"the list has {count} frames from {first} on, the folder {len(paths)} in all",
            )
        return paths[first : first + count]

    @property
    def probe_result(self) -> ProbeResult:
        """What `probe` returns for a file."""
        times = tuple(i / float(self.rate) for i in range(len(self.headers)))
        length = len(times) / float(self.rate)
        return ProbeResult("folder", "jpeg", times, self.rate, True, length, len(times), "")

    def decoded_jpegs(self) -> Iterator[tuple[bytes, Any]]:
        """Yield (bytes, decoded frame) of the JPEGs before the first damaged one."""
        for path, header in zip(self.paths, self.headers, strict=False):
            if header.orientation in MIRRORED:
                self.fault = f"{path.name}: mirrored by its EXIF orientation"
                return
            decoder: Any = av.CodecContext.create("mjpeg", "r")
            decoder.options = dict(STRICT_OPTIONS)
            try:
                data = read_frame(path)
                (frame,) = decoder.decode(av.Packet(data))
            except BadVideo as bad:
                self.fault = f"{path.name}: {bad.reason}"
                return
            except (av.FFmpegError, ValueError) as error:
                self.fault = f"{path.name}: {describe_error(error)}"
                return
            if frame.is_corrupt or END_OF_IMAGE not in data[-64:]:
                self.fault = f"{path.name}: the JPEG is cut off"
                return
            yield data, frame

    def frames(self, start: float | None, end: float | None) -> Iterator[tuple[float, Any]]:
        """Yield (time, frame) for start <= time < end, in seconds."""
        for number, (_, frame) in enumerate(self.decoded_jpegs()):
            time = number / float(self.rate)
            after_start = start is None or time >= start - TIME_TOLERANCE
            if after_start and (end is None or time < end - TIME_TOLERANCE):
                yield time, frame

    def find_remux_obstacle(self) -> str:
        """Return why the JPEGs cannot be stored bit for bit; "" if they can."""
        for path, header in zip(self.paths, self.headers, strict=False):
            if not header.is_baseline_420:
                return f"{path.name} is no baseline 4:2:0 JPEG"
            if header.orientation != 1:
                return f"{path.name} is turned by its EXIF orientation"
            if (header.width, header.height) != (self.headers[0].width, self.headers[0].height):
                return f"{path.name} has another size"
        return ""
