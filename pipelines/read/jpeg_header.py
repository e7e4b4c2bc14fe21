"""Checks JPEG headers before DALI decodes the images.

DALI 2.4 crashes with a segmentation fault when it cannot parse the header of an image (no start
marker, a header that is cut off, a window outside the image); for bad data after the header it
raises an error. A check takes about 3 us, and a tenth of that when the header equals the one before
it, as the headers of a video's frames mostly do.
"""

from __future__ import annotations

import numpy as np

HEADER = 4096  # bytes; FFmpeg and libjpeg write shorter headers
START, FRAME, SCAN = b"\xff\xd8", (0xC0, 0xC1, 0xC2), 0xDA  # SOI, SOF0 to SOF2, SOS


class JpegHeaderChecker:
    """Checks the headers of encoded frames; remembers the last valid one. Threads may share it."""

    def __init__(self) -> None:
        # (height, width, header), in one tuple that threads replace as a whole.
        self._valid = (-1, -1, START)

    def find_fault(self, data: np.ndarray, height: int, width: int) -> str | None:
        """Return what is wrong with the header of a JPEG (1-D uint8), or None if it is valid.

        height, width: size of the frame in the index, which the header must have.
        """
        known_height, known_width, known = self._valid
        head = data[: len(known)].tobytes()
        if head == known and (height, width) == (known_height, known_width):
            return None
        head = data[:HEADER].tobytes()
        if head[:2] != START:
            return "not a JPEG"
        try:
            fault, end = _parse(head, height, width)
        except IndexError:
            return _check_long_header(data, height, width)
        if fault is None and end <= len(head):
            self._valid = (height, width, head[:end])
        return fault


def _check_long_header(data: np.ndarray, height: int, width: int) -> str | None:
    """The fault of a header that does not end within HEADER bytes."""
    try:
        return _parse(data.tobytes(), height, width)[0]
    except IndexError:
        return "the JPEG header is cut off"


def _parse(data: bytes, height: int, width: int) -> tuple[str | None, int]:
    """The fault of a header, or None, and the offset of its end; IndexError if it is cut off."""
    position, has_frame_header = 2, False
    while True:
        if data[position] != 0xFF:
            return "the JPEG header is damaged", position
        marker = data[position + 1]
        length = _uint16(data, position + 2)
        if marker in FRAME:
            size = _uint16(data, position + 5), _uint16(data, position + 7)
            components, has_frame_header = data[position + 9], True
            if size != (height, width):
                fault = f"{size[1]}x{size[0]} pixels, but the index has {width}x{height}"
                return fault, position
            if components not in (1, 3) or length != 8 + 3 * components:
                return f"a JPEG with {components} components, not 1 or 3", position
        elif marker == SCAN:
            missing = None if has_frame_header else "a JPEG without a frame header"
            return missing, position + 2 + length
        position += 2 + length


def _uint16(data: bytes, offset: int) -> int:
    return data[offset] << 8 | data[offset + 1]
