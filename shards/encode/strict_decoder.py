"""Decode a file strictly: a frame that FFmpeg calls damaged or concealed never counts as good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av

from shards.encode.normalise import MAX_PIXELS
from shards.encode.probe import Probe, listening, open_video, why
from shards.errors import BadVideo

STRICT = {
    "err_detect": "crccheck+bitstream+buffer+explode",
    "max_pixels": str(MAX_PIXELS),
    "threads": "1",
}
EPSILON = 1e-6  # seconds: annotations are decimal, times are binary
# What decoders say when they mend a picture without flagging it.
MENDED = re.compile(
    r"conceal|error while decoding|missing reference|could not find ref|missing picture|"
    r"overread|slice.*damaged|corrupt|invalid data",
    re.IGNORECASE,
)


class Decoder:
    """Good frames of one file in display order; `fault` says why it ended early, if it did."""

    def __init__(self, path: Path, found: Probe) -> None:
        self.path = path
        self.found = found
        self.aspect: Any = None
        self.fault = found.damaged
        self.decoded = 0

    def frames(self, start: float | None, end: float | None) -> Iterator[tuple[float, Any]]:
        """(time in seconds, frame) for start <= time < end; stops before the first bad frame."""
        with open_video(self.path) as (container, stream):
            context = stream.codec_context
            context.options = dict(STRICT)
            self.aspect = stream.sample_aspect_ratio  # the container's word before the codec's
            if start:
                _seek(container, stream, start)
            last = None
            for frame in self._strict(container, stream, 0 if start else self.found.leading):
                time = frame.time if frame.pts is not None else None
                if time is None:
                    time = 0.0 if last is None else last + 1 / float(self.found.rate)
                last = time
                if end is not None and time >= end - EPSILON:
                    return
                if start is None or time >= start - EPSILON:
                    yield time, frame

    def _strict(self, container: Any, stream: Any, skipped: int) -> Iterator[Any]:
        try:
            for packet in islice(container.demux(stream), skipped, None):
                if packet.is_corrupt:
                    self.fault = self.fault or "an incomplete packet"
                    return
                with listening() as messages:
                    frames = packet.decode()
                mended = next((text for _, _, text in messages if MENDED.search(text)), "")
                if mended:  # the mended picture may come out only with a later packet
                    self.fault = f"frame {self.decoded}: {mended.strip()}"
                    return
                for frame in frames:
                    if frame.is_corrupt:
                        self.fault = f"frame {self.decoded}: FFmpeg marks it as corrupt"
                        return
                    self.decoded += 1
                    yield frame
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            self.fault = f"frame {self.decoded}: {why(error)}"


def _seek(container: Any, stream: Any, start: float) -> None:
    """Go to the keyframe at or before `start` (seconds)."""
    try:
        container.seek(int(start / stream.time_base), stream=stream, backward=True)
    except av.FFmpegError as error:
        raise BadVideo("unseekable", f"cannot seek to {start:.2f} s: {why(error)}") from None
