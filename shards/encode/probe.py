"""Reads what a file contains without decoding it: frame times, rate, and missing parts."""

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

# Containers of video files. Playlists are left out: they can name other files.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,flv,mpeg,mpegts,mpegvideo,ogg,gif,m4v,h264,"
    "hevc,mjpeg,rm,ivf,nut,wtv,dv,mxf,vob,obu"
)
# Containers whose header counts the frames; elsewhere `stream.frames` is a guess.
COUNTED = {"mov", "avi"}


@dataclass(frozen=True)
class ProbeResult:
    """What one file contains.

    Attributes:
        container, codec: their names in FFmpeg.
        times: sorted times of the frames in seconds.
        rate: frames per second.
        constant: whether the rate is constant.
        duration: seconds from the first frame to the end of the last stream.
        declared: number of frames by the header, 0 if it has none.
        damage: what is wrong with the container, "" for nothing.
        leading: packets before the first keyframe, which cannot be decoded.
    """

    container: str
    codec: str
    times: tuple[float, ...]
    rate: Fraction
    constant: bool
    duration: float
    declared: int
    damage: str
    leading: int = 0


def _check_file(path: Path) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise BadVideo("missing", "no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise BadVideo("not_a_file", "neither a regular file nor a folder of JPEG frames")
    if status.st_size == 0:
        raise BadVideo("empty", "the file has 0 bytes")
    with open(path, "rb"):  # a permission error is not the video's fault
        pass


def describe_error(error: Exception) -> str:
    """Return FFmpeg's text of an error, without the path."""
    text = getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)
    return f"{text} ({log[2].strip()})" if log else str(text)


@contextmanager
def capture_ffmpeg_log() -> Iterator[list[tuple[int, str, str]]]:
    """Collect FFmpeg's log messages of this thread as (level, name, text).

    PyAV drops them otherwise.
    """
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
    """Open a file for one decoding thread; the value is (container, video stream).

    Raises BadVideo if FFmpeg cannot read a video from it.
    """
    _check_file(path)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        with capture_ffmpeg_log():
            container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise BadVideo("unreadable", describe_error(error)) from None
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
    """What demultiplexing a file gives; `last` is the end of all streams in seconds."""

    times: list[float] = field(default_factory=list)
    packets: int = 0
    last: float = 0.0
    damage: str = ""
    first_key: int | None = None


def _demux(container: Any, stream: Any) -> _Contents:
    contents = _Contents()
    try:
        for packet in container.demux():
            if packet.size:
                _add_packet(contents, packet, packet.stream_index == stream.index)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        contents.damage = (
            contents.damage or f"after packet {contents.packets}: {describe_error(error)}"
        )
    contents.times.sort()
    return contents


def _add_packet(contents: _Contents, packet: Any, of_video: bool) -> None:
    time = packet.pts if packet.pts is not None else packet.dts
    seconds = float(time * packet.time_base) if time is not None else None
    if seconds is not None:
        contents.last = max(
            contents.last, seconds + float((packet.duration or 0) * packet.time_base)
        )
    if not of_video:
        return
    if packet.is_corrupt and not contents.damage:
        contents.damage = f"packet {contents.packets} is incomplete"
    if packet.is_keyframe and contents.first_key is None:
        contents.first_key = contents.packets
    if not packet.is_discard and seconds is not None:
        contents.times.append(seconds)
    contents.packets += 1


def probe(path: Path) -> ProbeResult:
    """Read all packets of a file. Raises BadVideo if it contains no video."""
    with open_video(path) as (container, stream):
        contents = _demux(container, stream)
        start = (container.start_time or 0) / av.time_base
        duration = (container.duration or 0) / av.time_base
        short_name = container.format.name.split(",")[0]
        declared = stream.frames if short_name in COUNTED else 0
        if contents.packets == 0:
            raise BadVideo("truncated" if declared else "no_frames", "no packet of video in it")
        damage = contents.damage or _find_missing_part(declared, contents, start + duration)
        rate = native_rate(contents.times, stream.guessed_rate)
        return ProbeResult(
            container=short_name,
            codec=stream.codec_context.name,
            times=tuple(contents.times),
            rate=rate,
            constant=len(contents.times) > 1 and is_constant(contents.times, rate),
            duration=max(contents.last - (contents.times[0] if contents.times else 0.0), 0.0),
            declared=declared,
            damage=damage,
            leading=contents.first_key or 0,
        )


def _find_missing_part(declared: int, contents: _Contents, end: float) -> str:
    """Return what the header declares and the file lacks, "" for nothing.

    Small differences are common and harmless.
    """
    if declared - contents.packets > max(1, declared // 100):
        return f"the header counts {declared} frames, {contents.packets} are there"
    if end - contents.last > max(1.0, 0.1 * end):
        return f"the header says {end:.1f} s, the data ends at {contents.last:.1f} s"
    return ""
