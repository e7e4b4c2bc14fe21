"""Look at a file without decoding it: what it says it holds, and what it really holds."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from shards.encode.frame_rate import is_constant, native_rate
from shards.errors import BadVideo

# Containers of video files. Play lists and the like are left out: they can name other files.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,flv,mpeg,mpegts,mpegvideo,ogg,gif,m4v,h264,"
    "hevc,mjpeg,rm,ivf,nut,wtv,dv,mxf,vob,obu"
)
# Containers whose header counts the frames; elsewhere `stream.frames` is a guess.
COUNTED = {"mov", "avi"}


@dataclass(frozen=True)
class Probe:
    """What a demultiplexing pass over one file found: times in seconds, sorted."""

    container: str
    codec: str
    times: tuple[float, ...]
    rate: Fraction
    constant: bool
    duration: float
    declared: int
    damaged: str
    leading: int = 0  # packets before the first keyframe: cut off from what they build on


def _check_file(path: Path) -> None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise BadVideo("missing", "no such file") from None
    if not stat.S_ISREG(found.st_mode):
        raise BadVideo("not_a_file", "neither a regular file nor a folder of JPEG frames")
    if found.st_size == 0:
        raise BadVideo("empty", "the file has 0 bytes")
    with open(path, "rb"):  # a permission error is the system's, not the video's
        pass


def why(error: Exception) -> str:
    """What FFmpeg says of an error, without the path."""
    text = getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)
    return f"{text} ({log[2].strip()})" if log else str(text)


@contextmanager
def listening() -> Iterator[list[tuple[int, str, str]]]:
    """FFmpeg's messages of this thread, as (level, name, text): PyAV is deaf to them otherwise."""
    level, repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.INFO)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages:
            yield messages
    finally:
        av.logging.set_skip_repeated(repeated)
        av.logging.set_level(level)


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream, one decoding thread.

    Raises BadVideo where FFmpeg finds no video to read.
    """
    _check_file(path)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        with listening():
            container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise BadVideo("unreadable", why(error)) from None
    with container:
        streams = [s for s in container.streams.video if not _is_cover(s)]
        if not streams:
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
            raise BadVideo("no_video", f"no video stream, only {kinds}")
        stream = streams[0]
        if stream.codec_context is None:
            raise BadVideo("unsupported", "FFmpeg knows no decoder for its codec")
        stream.codec_context.thread_count = 1
        yield container, stream


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


@dataclass
class _Contents:
    """What demultiplexing counts: `last` is the latest time of any stream, in seconds."""

    times: list[float] = field(default_factory=list)
    count: int = 0
    last: float = 0.0
    damage: str = ""
    first_key: int | None = None


def _demux(container: Any, stream: Any) -> _Contents:
    found = _Contents()
    try:
        for packet in container.demux():
            if packet.size:
                _count(found, packet, packet.stream_index == stream.index)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        found.damage = found.damage or f"after packet {found.count}: {why(error)}"
    found.times.sort()
    return found


def _count(found: _Contents, packet: Any, of_video: bool) -> None:
    time = packet.pts if packet.pts is not None else packet.dts
    seconds = float(time * packet.time_base) if time is not None else None
    if seconds is not None:
        found.last = max(found.last, seconds + float((packet.duration or 0) * packet.time_base))
    if not of_video:
        return
    if packet.is_corrupt and not found.damage:
        found.damage = f"packet {found.count} is incomplete"
    if packet.is_keyframe and found.first_key is None:
        found.first_key = found.count
    if not packet.is_discard and seconds is not None:
        found.times.append(seconds)
    found.count += 1


def probe(path: Path) -> Probe:
    """Demultiplex `path` once: its frames' times, its rate, and what is missing from it.

    `damaged` is empty, or says what is wrong with the container. Raises BadVideo if there is no
    video at all.
    """
    with open_video(path) as (container, stream):
        found = _demux(container, stream)
        start = (container.start_time or 0) / av.time_base
        duration = (container.duration or 0) / av.time_base
        short_name = container.format.name.split(",")[0]
        declared = stream.frames if short_name in COUNTED else 0
        if found.count == 0:
            raise BadVideo("truncated" if declared else "no_frames", "no packet of video in it")
        damaged = found.damage or _missing_part(declared, found, start + duration)
        rate = native_rate(found.times, stream.guessed_rate)
        return Probe(
            container=short_name,
            codec=stream.codec_context.name,
            times=tuple(found.times),
            rate=rate,
            constant=len(found.times) > 1 and is_constant(found.times, rate),
            duration=max(found.last - (found.times[0] if found.times else 0.0), 0.0),
            declared=declared,
            damaged=damaged,
            leading=found.first_key or 0,
        )


def _missing_part(declared: int, found: _Contents, end: float) -> str:
    """What the header promises and the file lacks; small misstatements are common and harmless."""
    if declared - found.count > max(1, declared // 100):
        return f"the header counts {declared} frames, {found.count} are there"
    if end - found.last > max(1.0, 0.1 * end):
        return f"the header says {end:.1f} s, the data ends at {found.last:.1f} s"
    return ""
