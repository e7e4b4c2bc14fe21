"""Decodes a file strictly: it stops at the first frame that is damaged or concealed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av

from shards.encode.normalise import MAX_PIXELS
from shards.encode.probe import ProbeResult, capture_ffmpeg_log, describe_error, open_video
from shards.errors import BadVideo

STRICT_OPTIONS = {
    "err_detect": "crccheck+bitstream+buffer+explode",
    "max_pixels": str(MAX_PIXELS),
    "threads": "1",
}
TIME_TOLERANCE = 1e-6  # seconds: annotations are decimal, times are binary
# What decoders log when they conceal errors in a frame without marking it as corrupt.
CONCEALED = re.compile(
    r"conceal|error while decoding|missing reference|could not find ref|missing picture|"
    r"overread|slice.*damaged|corrupt|invalid data",
    re.IGNORECASE,
)


class StrictDecoder:
    """Decodes the undamaged frames at the beginning of a file, in display order.

    fault: why the frames end early, "" if they do not.
    """

    def __init__(self, path: Path, probe_result: ProbeResult) -> None:
        self.path = path
        self.probe_result = probe_result
        self.aspect: Any = None
        self.fault = probe_result.damage
        self.decoded = 0

    def frames(self, start: float | None, end: float | None) -> Iterator[tuple[float, Any]]:
        """Yield (time, frame) for start <= time < end (seconds), up to the first damaged frame."""
        with open_video(self.path) as (container, stream):
            context = stream.codec_context
            context.options = dict(STRICT_OPTIONS)
            self.aspect = (
                stream.sample_aspect_ratio
            )  # the container's, which has precedence over the codec's
            if start:
                _seek(container, stream, start)
            skip = 0 if start else self.probe_result.leading
            last = None
            for frame in self._decode(container, stream, skip):
                time = frame.time if frame.pts is not None else None
                if time is None:
                    time = 0.0 if last is None else last + 1 / float(self.probe_result.rate)
                last = time
                if end is not None and time >= end - TIME_TOLERANCE:
                    return
                if start is None or time >= start - TIME_TOLERANCE:
                    yield time, frame

    def _decode(self, container: Any, stream: Any, skip: int) -> Iterator[Any]:
        try:
            for packet in islice(container.demux(stream), skip, None):
                if packet.is_corrupt:
                    self.fault = self.fault or "an incomplete packet"
                    return
                with capture_ffmpeg_log() as messages:
                    frames = packet.decode()
                concealed = [text for _, _, text in messages if CONCEALED.search(text)]
                if concealed:  # the frame itself may come out only with a later packet
                    self.fault = f"frame {self.decoded}: {concealed[0].strip()}"
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
            self.fault = f"frame {self.decoded}: {describe_error(error)}"


def _seek(container: Any, stream: Any, start: float) -> None:
    """Seek to the keyframe at or before `start` (seconds)."""
    try:
        container.seek(int(start / stream.time_base), stream=stream, backward=True)
    except av.FFmpegError as error:
        raise BadVideo(
            "unseekable", f"cannot seek to {start:.2f} s: {describe_error(error)}"
        ) from None
