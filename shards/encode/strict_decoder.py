"""Decodes a file strictly: it stops at the first frame that is damaged or concealed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av

from shards.encode.container import capture_ffmpeg_log, describe_error, open_video
from shards.encode.normalise import MAX_PIXELS
from shards.encode.probe import ProbeResult
from shards.encode.unshown import ABSENT_REFERENCE, UnshownErrors, holds_idr_picture
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
        with open_video(self.path, self.probe_result.stream) as (container, stream):
            # The container's aspect has precedence over the codec's.
            self.aspect = stream.sample_aspect_ratio
            if start:
                _seek(container, stream, start)
            skip = 0 if start else self.probe_result.leading
            last = None
            for frame in self._decode(container, stream, skip):
                time = last = self._time(frame, last)
                if end is not None and time >= end - TIME_TOLERANCE:
                    return
                if start is None or time >= start - TIME_TOLERANCE:
                    yield time, frame

    def _time(self, frame: Any, last: float | None) -> float:
        """Return the time of a frame in seconds; last: of the frame before.

        An AVI stores no time of display. There, and where times of display go backwards, it is the
        time of the packet that released the frame, as in FFmpeg's own tools.
        """
        display = frame.time if frame.pts is not None else None
        if self.probe_result.container == "avi":
            display = None
        if display is not None and (last is None or display > last):
            return float(display)
        release = None if frame.dts is None else float(frame.dts * frame.time_base)
        if release is not None and (last is None or release > last):
            return release
        if display is not None:
            return float(display)
        return 0.0 if last is None else last + 1 / float(self.probe_result.rate)

    def _decode(self, container: Any, stream: Any, skip: int) -> Iterator[Any]:
        unshown = UnshownErrors(self.probe_result.codec)
        lenient = None
        try:
            for packet in islice(container.demux(stream), skip, None):
                if lenient is None and packet.size:
                    lenient = _set_options(stream, packet, self.probe_result.codec)
                if packet.is_corrupt:
                    self.fault = self.fault or "an incomplete packet"
                    return
                unshown.advance(packet)
                absent = ABSENT_REFERENCE if lenient and unshown.in_first_group else ""
                frames, error = _decode_packet(packet, bool(lenient), absent)
                if error := unshown.verdict(packet, error):
                    self.fault = f"frame {self.decoded}: {error}"
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


def _set_options(stream: Any, packet: Any, codec: str) -> bool:
    """Set the options of the decoder by the first packet. Returns whether it is a lenient one.

    A decoder that stops at every error may lose frames of a file that begins in the middle of an
    open group of pictures; a lenient one decodes on, and its messages are checked instead.
    """
    lenient = codec == "h264" and not holds_idr_picture(bytes(packet), codec)
    options = dict(STRICT_OPTIONS)
    if lenient:
        options["err_detect"] = options["err_detect"].replace("+explode", "")
    stream.codec_context.options = options
    return lenient


def _decode_packet(packet: Any, lenient: bool, absent: str) -> tuple[list[Any], str]:
    """Return the frames that a packet releases, and what is wrong with it, "" for nothing.

    lenient: every error message counts. absent: a message that does not, "" for none.
    """
    with capture_ffmpeg_log() as messages:
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            return [], describe_error(error)
    for level, _, text in messages:
        if (absent and absent in text) or not text.strip():
            continue
        if CONCEALED.search(text) or (lenient and level <= av.logging.ERROR):
            return frames, text.strip()
    return frames, ""


def _seek(container: Any, stream: Any, start: float) -> None:
    """Seek to the keyframe at or before `start` (seconds)."""
    try:
        container.seek(int(start / stream.time_base), stream=stream, backward=True)
    except av.FFmpegError as error:
        raise BadVideo(
            "unseekable", f"cannot seek to {start:.2f} s: {describe_error(error)}"
        ) from None
