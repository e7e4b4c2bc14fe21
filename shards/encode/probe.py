"""Reads what a file contains without decoding it: frame times, rate, and missing parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from shards.encode import avi
from shards.encode.container import describe_error, open_container
from shards.encode.frame_rate import is_constant, native_rate
from shards.encode.streams import choose_stream, codec_name, describe_choice, film_streams
from shards.errors import BadVideo

# Containers whose header counts the frames; elsewhere `stream.frames` is a guess.
COUNTED = {"mov", "avi"}
EMPTY_PICTURE = (
    8  # bytes; an MPEG-4 packet of so few says "no new picture", or has a packed B-frame
)


@dataclass(frozen=True)
class ProbeResult:
    """What one file contains.

    Attributes:
        container, codec: their names in FFmpeg; the codec's, not that of its decoder.
        times: sorted times of the frames in seconds.
        rate: frames per second.
        constant: whether the rate is constant.
        duration: seconds from the first frame to the end of the last stream.
        declared: number of frames by the header, 0 if it has none.
        damage: what is wrong with the container, "" for nothing.
        leading: packets before the first keyframe, which cannot be decoded.
        stream: index of the video stream in the file.
        empty_pictures: whether some packets may hold no picture, so that the one before lasts.
        notes: sentences on what was chosen in the file.
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
    stream: int = 0
    empty_pictures: bool = False
    notes: tuple[str, ...] = ()


@dataclass
class _Contents:
    """What demultiplexing gives for one video stream, and the packet of damage."""

    times: list[float] = field(default_factory=list)
    packets: int = 0
    damage: str = ""
    first_key: int | None = None
    empty_pictures: bool = False


@dataclass
class _Demuxed:
    """What demultiplexing a file gives; `last` is the end of all streams in seconds."""

    streams: dict[int, _Contents]
    last: float = 0.0
    error: str = ""

    def packets(self) -> dict[int, int]:
        return {index: contents.packets for index, contents in self.streams.items()}

    def contents(self, index: int) -> _Contents:
        """The contents of a stream, with the error that ended demultiplexing."""
        contents = self.streams[index]
        if self.error and not contents.damage:
            contents.damage = f"after packet {contents.packets}: {self.error}"
        return contents


def _demux(container: Any) -> _Demuxed:
    demuxed = _Demuxed({stream.index: _Contents() for stream in film_streams(container)})
    try:
        for packet in container.demux():
            if packet.size:
                _add_packet(demuxed, packet)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        demuxed.error = describe_error(error)
    for contents in demuxed.streams.values():
        contents.times.sort()
    return demuxed


def _add_packet(demuxed: _Demuxed, packet: Any) -> None:
    time = packet.pts if packet.pts is not None else packet.dts
    seconds = float(time * packet.time_base) if time is not None else None
    if seconds is not None:
        end = seconds + float((packet.duration or 0) * packet.time_base)
        demuxed.last = max(demuxed.last, end)
    contents = demuxed.streams.get(packet.stream_index)
    if contents is None:
        return
    if packet.is_corrupt and not contents.damage:
        contents.damage = f"packet {contents.packets} is incomplete"
    if packet.is_keyframe and contents.first_key is None:
        contents.first_key = contents.packets
    contents.empty_pictures |= packet.size <= EMPTY_PICTURE
    if not packet.is_discard and seconds is not None:
        contents.times.append(seconds)
    contents.packets += 1


def probe(path: Path) -> ProbeResult:
    """Read all packets of a file. Raises BadVideo if it contains no video."""
    with open_container(path) as container:
        streams = film_streams(container)
        if not streams:
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
            raise BadVideo("no_video", f"no video stream, only {kinds}")
        demuxed = _demux(container)
        stream = choose_stream(streams, demuxed.packets())
        if stream.codec_context is None:
            raise BadVideo("unsupported", "FFmpeg knows no decoder for its codec")
        contents = demuxed.contents(stream.index)
        short_name = container.format.name.split(",")[0]
        declared = stream.frames if short_name in COUNTED else 0
        if contents.packets == 0:
            raise BadVideo("truncated" if declared else "no_frames", "no packet of video in it")
        rate = native_rate(contents.times, stream.guessed_rate)
        return ProbeResult(
            container=short_name,
            codec=codec_name(stream),
            times=tuple(contents.times),
            rate=rate,
            constant=len(contents.times) > 1 and is_constant(contents.times, rate),
            duration=max(demuxed.last - (contents.times[0] if contents.times else 0.0), 0.0),
            declared=declared,
            damage=contents.damage or _find_missing_part(path, container, stream, demuxed),
            leading=contents.first_key or 0,
            stream=stream.index,
            empty_pictures=contents.empty_pictures and codec_name(stream) == "mpeg4",
            notes=tuple(describe_choice(streams, stream)),
        )


def _find_missing_part(path: Path, container: Any, stream: Any, demuxed: _Demuxed) -> str:
    """Return what the header declares and the file lacks, "" for nothing.

    A file is truncated only where bytes are missing. Frames that an edit list hides, or that the
    recorder dropped, are not.
    """
    short_name = container.format.name.split(",")[0]
    declared = stream.frames if short_name in COUNTED else 0
    end = ((container.start_time or 0) + (container.duration or 0)) / av.time_base
    damage = _find_shortfall(declared, demuxed.contents(stream.index).packets, end, demuxed.last)
    if damage and short_name == "mov":
        with open_container(path, ignore_editlist="1") as unedited:
            everything = _demux(unedited)
        packets, last = everything.packets()[stream.index], max(demuxed.last, everything.last)
        return damage if everything.error else _find_shortfall(declared, packets, end, last)
    if damage and short_name == "avi":
        found = avi.count_frames(path, stream.index)
        return damage if found is None or _lacks_frames(declared, found) else ""
    return damage


def _lacks_frames(declared: int, found: int) -> bool:
    """Whether a stream lacks frames. Small differences are common and harmless."""
    return declared - found > max(1, declared // 100)


def _find_shortfall(declared: int, packets: int, end: float, last: float) -> str:
    """Return what is missing by number of frames and length in seconds, "" for nothing."""
    if _lacks_frames(declared, packets):
        return f"the header counts {declared} frames, {packets} are there"
    if end - last > max(1.0, 0.1 * end):
        return f"the header says {end:.1f} s, the data ends at {last:.1f} s"
    return ""
